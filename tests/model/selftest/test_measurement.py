import math
from dataclasses import replace

import pytest
import torch

from monitor.dictionary.sae import Activation, SparseAutoencoder
from monitor.model.selftest import measurement as module
from monitor.model.selftest.measurement import EARLY, measure, measure_sample
from tests.model.selftest.numbers import FOUND, random_rows, rows_from
from tests.model.tiny import WIDTH, dictionary


def relu(encoder, decoder, bias):
    return SparseAutoencoder(
        Activation.RELU, encoder, torch.zeros(len(encoder)), decoder, bias, input_bias=None
    )


def perfect():
    """A dictionary that gives back everything: an axis and its opposite for every direction."""
    both = torch.cat([torch.eye(WIDTH), -torch.eye(WIDTH)])
    return relu(both, both, torch.zeros(WIDTH))


def test_a_dictionary_that_gives_everything_back_explains_all():
    rows = random_rows()
    found = measure(rows, perfect())
    assert found.explained_variance == pytest.approx(1.0)
    assert found.early_explained_variance == pytest.approx(1.0)
    assert (found.l0, found.early_l0) == (WIDTH, WIDTH), "of an axis and its opposite one is active"
    assert found.whole


def test_a_dictionary_that_gives_the_mean_explains_nothing_and_one_that_gives_zero_less():
    rows = random_rows()
    nothing = torch.zeros(4, WIDTH)
    mean = measure(rows, relu(nothing, nothing, rows.x.mean(0)))
    assert (mean.l0, mean.explained_variance) == (0.0, pytest.approx(0.0, abs=1e-6))
    assert measure(rows, relu(nothing, nothing, torch.zeros(WIDTH))).explained_variance < 0


def test_norms_are_those_of_the_rows():
    rows = rows_from(torch.cat([torch.ones(1, WIDTH), torch.arange(1.0, 6.0)[:, None].expand(5, WIDTH)]))
    found = measure(rows, perfect())
    assert (found.tokens, found.outliers) == (5, 0.0)
    assert found.norm == pytest.approx(3 * math.sqrt(WIDTH))


def test_the_first_tokens_behind_bos_are_the_early_ones():
    texts = [torch.ones(3, WIDTH), torch.ones(EARLY + 6, WIDTH)]
    early = rows_from(*texts).early.tolist()
    assert early == [True] * 2 + [True] * EARLY + [False] * 5


def test_a_few_rows_are_spread_over_all():
    rows = random_rows(2000)
    some = rows.thinned(100)
    step = len(rows.x) // 100
    torch.testing.assert_close(some.x, rows.x[::step])
    torch.testing.assert_close(some.early, rows.early[::step])
    assert (some.outliers, some.finite) == (rows.outliers, rows.finite)
    assert len(rows.thinned(10**9).x) == len(rows.x)


def test_rows_go_to_a_device_together():
    moved = random_rows().to(torch.device("meta"))
    assert (moved.x.device.type, moved.early.device.type) == ("meta", "meta")


def test_a_sample_of_features_stands_for_all(monkeypatch):
    """Features that are alike are counted exactly, whichever of them are read."""
    monkeypatch.setattr(module, "_RUNS", 4)
    monkeypatch.setattr(module, "_RUN", 2)
    rows, one = random_rows(), torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(5))
    sae = relu(one.expand(64, WIDTH).clone(), torch.zeros(64, WIDTH), torch.zeros(WIDTH))
    found, whole = measure_sample(rows, sae), measure(rows, sae)
    assert found.l0 == pytest.approx(whole.l0)
    assert found.early_l0 == pytest.approx(whole.early_l0)
    assert (found.norm, found.tokens) == (whole.norm, whole.tokens)
    assert math.isnan(found.explained_variance)


def test_only_a_measurement_of_all_features_is_whole():
    assert FOUND.whole
    assert not replace(FOUND, explained_variance=math.nan).whole


def test_many_tokens_are_taken_in_parts(monkeypatch):
    rows, sae = random_rows(400), dictionary("jumprelu")
    whole = measure(rows, sae)
    monkeypatch.setattr(module, "_TOKENS", 7)
    parts = measure(rows, sae)
    assert parts.l0 == whole.l0
    assert parts.explained_variance == pytest.approx(whole.explained_variance, rel=1e-5)
