"""Measures against numbers worked out by hand in float64."""

import pytest
import torch

from monitor.dictionary.sae import Activation, SparseAutoencoder
from monitor.dictionary.training.quality import measure_quality, nearest_cosines
from monitor.dictionary.training.stream import trained_positions

VOCABULARY, WIDTH, BOS = 11, 6, 0


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
    out = torch.randint(1, VOCABULARY, (12, 9), generator=torch.Generator().manual_seed(1))
    out[:, 0] = BOS
    out[3, 4] = BOS
    return out


def perfect():
    eye = torch.eye(WIDTH)
    both = torch.cat([eye, -eye])
    return SparseAutoencoder(Activation.RELU, both, torch.zeros(2 * WIDTH), both, torch.zeros(WIDTH))


def test_a_perfect_dictionary():
    model = Model()
    found = measure_quality(perfect(), [ids()[:6], ids()[6:]], model.residuals, model.logits, bos=BOS)
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
    found = measure_quality(silent, [ids()], model.residuals, model.logits, bos=BOS)
    assert found.ce_recovered == pytest.approx(0, abs=1e-6)
    assert found.dead == 1
    assert found.l0 == 0
    x = model.embed[ids()][trained_positions(ids(), BOS)].double()
    assert found.fvu == pytest.approx(float(x.square().sum() / (x - x.mean(0)).square().sum()))


def test_cross_entropies_by_hand():
    model, rows = Model(), ids()
    half = perfect()
    half = SparseAutoencoder(
        Activation.RELU, half.encoder, half.encoder_bias, half.decoder * 0.5, half.decoder_bias
    )
    found = measure_quality(half, [rows], model.residuals, model.logits, bos=BOS)
    keep = trained_positions(rows, BOS)
    x = model.embed[rows].double()
    spliced = torch.where(keep.unsqueeze(-1), 0.5 * x, x)
    for name, stream in (("ce_clean", x), ("ce_spliced", spliced), ("ce_zero", x * ~keep.unsqueeze(-1))):
        odds = (stream @ model.head.double()).log_softmax(-1)[:, :-1]
        nats = -odds.gather(-1, rows[:, 1:, None]).squeeze(-1)[keep[:, 1:]].mean()
        assert getattr(found, name) == pytest.approx(float(nats), rel=1e-5)


def test_nearest_cosines():
    decoder = torch.tensor([[1.0, 0.0], [2.0, 2.0], [0.0, -3.0]])
    torch.testing.assert_close(nearest_cosines(decoder), torch.tensor([0.5**0.5, 0.5**0.5, 0.0]))
