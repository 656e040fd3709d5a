"""The strongest contexts of every feature: windows, documents, batches."""

from __future__ import annotations

import math

import pytest
import torch

from monitor.dictionary.cards.contexts import EMPTY, ActivationBatch, TopContexts
from monitor.dictionary.cards.description import DescribeOptions, describe
from tests.dictionary.cards.plain_contexts import plain
from tests.dictionary.small_dictionary import FEATURES, residuals_of, small_autoencoder, small_rows


def test_windows_hold_the_tokens_around_the_peak_of_one_document():
    rows = small_rows(23, 16)
    options = DescribeOptions(math.inf, keep=4, before=3, after=2, batch_tokens=64)
    found = describe(rows, residuals_of, small_autoencoder(), options)
    best, _, _ = plain(rows)
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


def batch(activations, documents, rows=None, first=100):
    """One feature's activations at tokens that are numbered from `first` on."""
    n = len(activations)
    return ActivationBatch(
        ids=torch.arange(first, first + n),
        rows=torch.tensor(rows or [0] * n),
        documents=torch.tensor(documents),
        activations=torch.tensor(activations).unsqueeze(1),
    )


def test_a_document_that_goes_on_keeps_its_stronger_context():
    top = TopContexts(1, keep=2, before=1, after=1)
    top.update(batch([0.0, 2.0, 0.0], [0, 0, 0]))
    top.update(batch([1.0, 0.0], [0, 1], first=200))
    assert top.peaks[0].tolist() == [2.0, 0.0]
    assert top.ids[0, 0].tolist() == [100, 101, 102]
    top.update(batch([5.0, 0.0, 4.0], [1, 1, 2], first=300))
    top.update(batch([6.0], [2], first=400))
    assert top.peaks[0].tolist() == [6.0, 5.0]
    assert top.documents[0].tolist() == [2, 1]
    assert top.ids[0].tolist() == [[EMPTY, 400, EMPTY], [EMPTY, 300, 301]]


def test_a_window_ends_with_its_sequence_and_its_document():
    top = TopContexts(1, keep=1, before=2, after=2)
    top.update(batch([0.1, 0.2, 3.0, 0.4, 0.5], [0, 1, 1, 1, 1], rows=[0, 0, 0, 0, 1]))
    assert top.ids[0, 0].tolist() == [EMPTY, 101, 102, 103, EMPTY]
    assert top.levels[0, 0].tolist() == pytest.approx([0.0, 0.2, 3.0, 0.4, 0.0])


def test_an_inactive_feature_has_no_context():
    top = TopContexts(2, keep=2, before=0, after=0)
    levels = torch.tensor([[0.0, 1.0], [0.0, 2.0]])
    top.update(ActivationBatch(torch.tensor([5, 6]), torch.zeros(2), torch.tensor([0, 1]), levels))
    assert top.peaks.tolist() == [[0.0, 0.0], [2.0, 1.0]]
    assert top.documents.tolist() == [[EMPTY, EMPTY], [1, 0]]
    assert top.ids[:, :, 0].tolist() == [[EMPTY, EMPTY], [6, 5]]
