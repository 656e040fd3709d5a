from __future__ import annotations

import math

import pytest
import torch

from monitor.dictionary.cards.contexts import EMPTY
from monitor.dictionary.cards.description import DescribeOptions, describe
from monitor.dictionary.packed_text import PackedText
from monitor.errors import DictionaryError
from tests.dictionary.small_dictionary import BOS, FEATURES, residuals_of, small_autoencoder, small_rows


def _plain(rows):
    """The same in plain loops and float64: per feature maximum, share of active tokens, best place per document."""
    autoencoder = small_autoencoder().to(dtype=torch.float64)
    best: list[dict[int, tuple[float, int, int]]] = [{} for _ in range(FEATURES)]
    active, tokens = torch.zeros(FEATURES), 0
    for number, row in enumerate(rows):
        activations = autoencoder.encode(residuals_of(row.ids[None])[0].double())
        for at, document in enumerate(row.documents.tolist()):
            if at == 0 or row.documents[at] != row.documents[at - 1]:
                continue
            tokens += 1
            for feature in range(FEATURES):
                value = float(activations[at, feature])
                active[feature] += value > 0
                if value > best[feature].get(document, (0.0,))[0]:
                    best[feature][document] = (value, number, at)
    return best, active / tokens, tokens


@pytest.mark.parametrize("batch_tokens", [16, 64, 10_000])
def test_one_pass_finds_what_plain_loops_find(batch_tokens):
    rows = small_rows(23, 16)
    options = DescribeOptions(math.inf, keep=4, before=3, after=2, batch_tokens=batch_tokens)
    found = describe(rows, residuals_of, small_autoencoder(), options)
    best, density, tokens = _plain(rows)
    assert found.statistics.tokens == tokens
    assert torch.allclose(found.statistics.density, density.float())
    for feature in range(FEATURES):
        expected = sorted((value for value, _, _ in best[feature].values()), reverse=True)[:4]
        expected += [0.0] * (4 - len(expected))
        assert found.contexts.peaks[feature].tolist() == pytest.approx(expected, abs=1e-5)
        assert float(found.statistics.maximum[feature]) == pytest.approx(expected[0], abs=1e-5)


def test_windows_hold_the_tokens_around_the_peak_of_one_document():
    rows = small_rows(23, 16)
    options = DescribeOptions(math.inf, keep=4, before=3, after=2, batch_tokens=64)
    found = describe(rows, residuals_of, small_autoencoder(), options)
    best, _, _ = _plain(rows)
    for feature in range(FEATURES):
        places = sorted(best[feature].values(), reverse=True)[:4]
        for slot, (value, row, at) in enumerate(places):
            window = found.contexts.ids[feature, slot].tolist()
            ids, documents = rows[row].ids.tolist(), rows[row].documents.tolist()
            expected = [
                ids[p] if 0 <= p < 16 and documents[p] == documents[at] else EMPTY
                for p in range(at - 3, at + 3)
            ]
            assert window == expected
            assert float(found.contexts.levels[feature, slot, 3]) == pytest.approx(value, abs=1e-5)


def test_contexts_come_from_different_documents_even_over_batches():
    one_long = small_rows(8, 16, bos_share=0.0)
    found = describe(
        one_long, residuals_of, small_autoencoder(), DescribeOptions(math.inf, keep=3, batch_tokens=16)
    )
    assert int((found.contexts.peaks > 0).sum(1).max()) == 1


def test_tokens_of_outlying_norm_are_left_out():
    rows = small_rows(4, 16, bos_share=0.0)

    def with_sink(ids):
        x = residuals_of(ids).clone()
        x[:, 5] *= 1e4
        return x

    found = describe(rows, with_sink, small_autoencoder(), DescribeOptions(100.0))
    assert found.outliers == 4
    assert float(found.statistics.maximum.max()) < 100
    kept = describe(rows, with_sink, small_autoencoder(), DescribeOptions(math.inf))
    assert float(kept.statistics.maximum.max()) > 100


def test_a_token_that_is_no_number_takes_no_other_with_it():
    ids = torch.tensor([[BOS, 5, 6, 7], [BOS, 8, 9, 10]])
    rows = [PackedText(row, torch.zeros(4, dtype=torch.int64)) for row in ids]

    def broken(given):
        x = torch.ones(*given.shape, small_autoencoder().d_model)
        x[given == 6] = torch.nan
        return x

    found = describe(rows, broken, small_autoencoder(), DescribeOptions(100.0))
    assert (found.statistics.tokens, found.outliers) == (5, 1)


def test_no_rows_is_an_error():
    with pytest.raises(DictionaryError, match="no token was read"):
        describe([], residuals_of, small_autoencoder(), DescribeOptions(100.0))
