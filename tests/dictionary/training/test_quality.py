"""Measures against numbers worked out by hand in float64."""

import dataclasses
import math

import pytest
import torch

from monitor.dictionary.packed_text import PackedText
from monitor.dictionary.sae import Activation, SparseAutoencoder
from monitor.dictionary.training.quality import measure_quality, nearest_cosines

VOCABULARY, WIDTH = 11, 6


class Model:
    """Embedding, a residual stream, an unembedding."""

    def __init__(self):
        random = torch.Generator().manual_seed(9)
        self.embed = torch.randn(VOCABULARY, WIDTH, generator=random)
        self.head = torch.randn(WIDTH, VOCABULARY, generator=random)

    def residuals(self, ids):
        return self.embed[ids]

    def logits(self, ids, replace):
        x = self.embed[ids]
        return (x if replace is None else replace(x)) @ self.head


def ids():
    return torch.randint(1, VOCABULARY, (12, 9), generator=torch.Generator().manual_seed(1))


def packed(*batches):
    """Each row a document, but the fourth, in which a second one begins."""
    documents = torch.arange(12)[:, None] * 2 + torch.zeros(9, dtype=torch.int64)
    documents[3, 4:] += 1
    whole = PackedText(ids(), documents)
    return [PackedText(whole.ids[part], whole.documents[part]) for part in batches or [slice(None)]]


def perfect():
    eye = torch.eye(WIDTH)
    both = torch.cat([eye, -eye])
    return SparseAutoencoder(Activation.RELU, both, torch.zeros(2 * WIDTH), both, torch.zeros(WIDTH))


def half_as_strong():
    sae = perfect()
    return dataclasses.replace(sae, decoder=sae.decoder * 0.5)


def test_a_perfect_dictionary():
    model = Model()
    found = measure_quality(
        perfect(), packed(slice(6), slice(6, 12)), model.residuals, model.logits, limit=math.inf
    )
    assert found.tokens == 12 * 8 - 1
    assert found.fvu == pytest.approx(0, abs=1e-9)
    assert found.ce_recovered == pytest.approx(1, abs=1e-6)
    assert found.l0 == pytest.approx(WIDTH)
    assert found.cosine == pytest.approx(1, abs=1e-6)
    assert found.dead == 0


def test_a_dictionary_that_says_nothing():
    model = Model()
    silent = SparseAutoencoder(
        Activation.RELU, torch.zeros(3, WIDTH), torch.zeros(3), torch.eye(3, WIDTH), torch.zeros(WIDTH)
    )
    found = measure_quality(silent, packed(), model.residuals, model.logits, limit=math.inf)
    assert found.ce_recovered == pytest.approx(0, abs=1e-6)
    assert found.dead == 1
    assert found.l0 == 0
    x = model.embed[ids()][packed()[0].positions > 0].double()
    assert found.fvu == pytest.approx(float(x.square().sum() / (x - x.mean(0)).square().sum()))


def test_cross_entropies_by_hand():
    model, rows = Model(), ids()
    half = half_as_strong()
    found = measure_quality(half, packed(), model.residuals, model.logits, limit=math.inf)
    keep = packed()[0].positions > 0
    x = model.embed[rows].double()
    spliced = torch.where(keep.unsqueeze(-1), 0.5 * x, x)
    for name, stream in (("ce_clean", x), ("ce_spliced", spliced), ("ce_zero", x * ~keep.unsqueeze(-1))):
        odds = (stream @ model.head.double()).log_softmax(-1)[:, :-1]
        nats = -odds.gather(-1, rows[:, 1:, None]).squeeze(-1)[keep[:, 1:]].mean()
        assert getattr(found, name) == pytest.approx(float(nats), rel=1e-5)


def test_a_token_of_outlying_norm_is_no_part_of_any_measure():
    """A sink behind the first position, such as a full stop, once took the explained variance below zero."""
    model = Model()
    model.embed[7] *= 1000
    found = measure_quality(half_as_strong(), packed(), model.residuals, model.logits, limit=100.0)
    kept = (packed()[0].positions > 0) & (ids() != 7)
    assert found.tokens == int(kept.sum())
    x = model.embed[ids()][kept].double()
    error = (0.5 * x).square().sum()
    assert found.fvu == pytest.approx(float(error / (x - x.mean(0)).square().sum()), rel=1e-4)
    assert found.ce_tokens == int(kept[:, 1:].sum())
    spliced = torch.where(kept.unsqueeze(-1), 0.5 * model.embed[ids()], model.embed[ids()]).double()
    odds = (spliced @ model.head.double()).log_softmax(-1)[:, :-1]
    nats = -odds.gather(-1, ids()[:, 1:, None]).squeeze(-1)[kept[:, 1:]].mean()
    assert found.ce_spliced == pytest.approx(float(nats), rel=1e-4)


def test_nearest_cosines():
    decoder = torch.tensor([[1.0, 0.0], [2.0, 2.0], [0.0, -3.0]])
    torch.testing.assert_close(nearest_cosines(decoder), torch.tensor([0.5**0.5, 0.5**0.5, 0.0]))
