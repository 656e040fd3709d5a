from __future__ import annotations

import math

import pytest
import torch

from monitor.dictionary.explore.text_pooling import pool
from monitor.errors import InputError
from tests.dictionary.small_dictionary import BOS, residuals_of, small_autoencoder


def _texts(count=17, seed=11):
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 30, (count,), generator=draw).tolist()
    return [[BOS, *torch.randint(2, 40, (n,), generator=draw).tolist()] for n in lengths]


@pytest.mark.parametrize("batch_tokens", [1, 40, 10_000])
def test_batches_give_what_each_text_alone_gives(batch_tokens):
    texts = _texts()
    found = pool(texts, residuals_of, small_autoencoder(), limit=math.inf, batch_tokens=batch_tokens)
    exact = small_autoencoder().to(dtype=torch.float64)
    for row, ids in enumerate(texts):
        x = residuals_of(torch.tensor([ids]))[0, 1:].double()
        activations = exact.encode(x)
        assert torch.allclose(found.maximum[row], activations.amax(0).float(), atol=1e-5)
        assert torch.allclose(found.mean[row], activations.mean(0).float(), atol=1e-5)
        assert torch.allclose(found.residual[row], x.mean(0).float(), atol=1e-5)
        expected = torch.where(activations.amax(0) > 0, activations.argmax(0) + 1, 0)
        assert found.peak[row].tolist() == expected.tolist()
        assert int(found.tokens[row]) == len(ids) - 1


def test_only_tokens_from_the_start_on_count():
    texts = [ids for ids in _texts() if len(ids) > 6]
    found = pool(texts, residuals_of, small_autoencoder(), limit=math.inf, starts=[4] * len(texts))
    for row, ids in enumerate(texts):
        activations = small_autoencoder().encode(residuals_of(torch.tensor([ids]))[0, 4:])
        assert torch.allclose(found.maximum[row], activations.amax(0), atol=1e-5)
        assert torch.allclose(found.mean[row], activations.mean(0), atol=1e-5)


def test_a_text_without_tokens_is_refused():
    with pytest.raises(InputError, match="text 2 has no token"):
        pool([[BOS, 5], [BOS]], residuals_of, small_autoencoder(), limit=math.inf)


def test_a_token_of_outlying_norm_does_not_count():
    texts = [ids for ids in _texts() if len(ids) > 6]

    def with_sink(ids, lengths=None):
        x = residuals_of(ids).clone()
        x[:, 3] *= 1e4
        return x

    found = pool(texts, with_sink, small_autoencoder(), limit=100.0)
    for row, ids in enumerate(texts):
        x = with_sink(torch.tensor([ids]))[0]
        kept = torch.cat([x[1:3], x[4:]])
        assert torch.allclose(found.maximum[row], small_autoencoder().encode(kept).amax(0), atol=1e-5)
        assert torch.allclose(found.residual[row], kept.mean(0), atol=1e-5)
        assert int(found.tokens[row]) == len(ids) - 2
