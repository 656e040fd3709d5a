"""Anomaly signals of the command line's reader against their definitions."""

import numpy as np
import pytest
import torch

from monitor.lab.pair import open_pair
from monitor.lab.readings import PairReader
from monitor.records import Signal

TEXTS = ["The train to the coast leaves every hour.", "zzxv qq ~~~~ 0x81", "I hide my goals."]


@pytest.fixture(scope="module")
def reader():
    return PairReader(open_pair(None, None, "cpu"), list(Signal))


def test_signals_are_what_their_definitions_say(reader):
    read = reader.read(TEXTS)
    autoencoder = reader.pair.dictionary.autoencoder
    for text in range(len(TEXTS)):
        x = torch.from_numpy(read.residual(text))
        silent = autoencoder.decode(torch.zeros(len(x), autoencoder.features), x)
        missed = (x - autoencoder.reconstruct(x)).double().square().sum(-1)
        error = missed / (x - silent).double().square().sum(-1)
        norm = x.double().square().mean(-1).sqrt()
        which = np.asarray([text])
        np.testing.assert_allclose(read.signal("reconstruction_error", which)[0], error.numpy(), rtol=1e-3)
        np.testing.assert_allclose(read.signal("residual_norm", which)[0], norm.numpy(), rtol=1e-6)


def test_signals_nobody_asked_for_are_not_read(reader):
    assert PairReader(reader.pair).read(TEXTS[:1]).signals == {}
