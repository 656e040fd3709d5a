"""Readings and attributions of the command line's reader, against plain loops and finite differences."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from monitor.dictionary.cards.statistics import FeatureStatistics
from monitor.dictionary.sae import Activation, SparseAutoencoder
from monitor.lab.readings import PairReader

WIDTH, FEATURES, WORDS = 6, 15, 20


class Harvester:
    """A causal toy: the residual at t is a mix of the embeddings up to t; logits read it after a bend."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.embedding = torch.randn(WORDS, WIDTH, generator=generator)
        self.mix = torch.randn(WIDTH, WIDTH, generator=generator)
        self.head = torch.randn(WIDTH, WORDS, generator=generator)

    def residuals(self, ids):
        return self.embedding[ids].cumsum(1) / 2

    def logits(self, ids, replace=None):
        x = self.residuals(ids)
        x = x if replace is None else replace(x)
        return torch.tanh(x.cumsum(1) @ self.mix / 3) @ self.head


@dataclass
class Pair:
    loaded: SimpleNamespace
    dictionary: SimpleNamespace
    harvester: Harvester

    def ids(self, text):
        return [0, *(int(word) for word in text.split())]

    def residuals(self, ids):
        return self.harvester.residuals(ids)


@pytest.fixture
def reader():
    generator = torch.Generator().manual_seed(1)
    sae = SparseAutoencoder(
        activation=Activation.JUMPRELU,
        encoder=torch.randn(FEATURES, WIDTH, generator=generator),
        encoder_bias=torch.randn(FEATURES, generator=generator),
        decoder=torch.randn(FEATURES, WIDTH, generator=generator),
        decoder_bias=torch.zeros(WIDTH),
        threshold=torch.full((FEATURES,), 0.3),
    )
    maximum = torch.linspace(0, 7, FEATURES)
    statistics = FeatureStatistics(maximum=maximum, density=torch.full((FEATURES,), 0.1), tokens=100)
    dictionary = SimpleNamespace(autoencoder=sae, statistics=statistics)
    return PairReader(Pair(SimpleNamespace(device=torch.device("cpu")), dictionary, Harvester()))


TEXTS = ["3 4 5 6 7", "1", "9 9 2 3 4 5 6 11 12", "", "14 2"]


def test_readings_are_activations_in_units_of_the_maximum(reader):
    read = reader.read(TEXTS)
    sae = reader.pair.dictionary.autoencoder.to(dtype=torch.float64)
    unit = reader.maxima
    assert unit[0] == 0
    for i, text in enumerate(TEXTS):
        x = reader.pair.residuals(torch.tensor([reader.ids(text)]))[0].double()
        expected = sae.encode(x).numpy()
        expected = np.divide(expected, unit, out=np.zeros_like(expected), where=unit > 0)
        np.testing.assert_allclose(read.tokens.of(i).toarray(), expected[1:], rtol=1e-5, atol=1e-6)
        alone = reader.readings(reader.ids(text), [14, 3, 0])
        np.testing.assert_allclose(alone, expected[:, [14, 3, 0]], rtol=1e-5, atol=1e-6)
        mean = x[1:].mean(0).numpy() if len(x) > 1 else np.zeros(WIDTH)
        np.testing.assert_allclose(read.means[i], mean, rtol=1e-5, atol=1e-6)


def test_attribution_is_the_slope_of_the_log_probability(reader):
    """Scaling feature i by (1 + e) everywhere in a text moves log p by e times attribution times tokens."""
    sae, harvester = reader.pair.dictionary.autoencoder, reader.pair.harvester
    found = reader.attribution(["3 4 5 6 7 8", "9 9 2"])
    expected = np.zeros(FEATURES)
    for text in ("3 4 5 6 7 8", "9 9 2"):
        ids = torch.tensor([reader.ids(text)])
        active = sae.encode(harvester.residuals(ids))
        for i in range(FEATURES):

            def log_p(e, i=i, active=active, ids=ids):
                push = e * active[0, :, i].double()
                push[0] = 0
                moved = harvester.residuals(ids).double() + push[None, :, None] * sae.decoder[i].double()
                logits = torch.tanh(moved.cumsum(1) @ harvester.mix.double() / 3) @ harvester.head.double()
                chosen = torch.log_softmax(logits[:, :-1], -1).gather(-1, ids[:, 1:, None])
                return float(chosen.sum())

            expected[i] += (log_p(1e-4) - log_p(-1e-4)) / 2e-4 / (ids.shape[1] - 1) / 2
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
