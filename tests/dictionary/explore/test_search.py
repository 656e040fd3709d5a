"""Search and contrast: which features fire on texts."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import roc_auc_score

from monitor.dictionary.cards.statistics import FeatureStatistics
from monitor.dictionary.explore.contrast import Pool, contrast
from monitor.dictionary.explore.search import search
from monitor.dictionary.explore.text_pooling import Pooled


def _pooled(maximum, mean=None):
    maximum = torch.tensor(maximum)
    return Pooled(
        maximum=maximum,
        mean=maximum / 10 if mean is None else torch.tensor(mean),
        peak=(maximum > 0).int() * 4,
        residual=torch.zeros(len(maximum), 2),
        tokens=torch.full((len(maximum),), 10),
    )


def _statistics(density, maximum=None):
    return FeatureStatistics(
        maximum=torch.tensor(maximum or [1.0] * len(density)), density=torch.tensor(density), tokens=100_000
    )


def test_firing_on_all_texts_beats_firing_on_one_and_rare_beats_common():
    pooled = _pooled([[0.8, 0.8, 0.8, 0.0], [0.8, 0.8, 0.0, 0.0], [0.8, 0.8, 0.0, 0.0]])
    hits = search(pooled, _statistics([0.001, 0.2, 0.001, 0.001]), limit=10)
    assert [hit.feature for hit in hits] == [0, 2, 1]
    assert [hit.fired for hit in hits] == [3, 1, 3]
    assert hits[1].peaks == (4, 0, 0)


def test_the_score_is_the_stated_formula():
    hits = search(_pooled([[1.0], [0.0]]), _statistics([0.01], [2.0]), limit=10)
    surprise = -math.log2(1 - 0.99**10)
    assert hits[0].score == pytest.approx(surprise / 2 * 0.25 * 0.5, rel=1e-6)
    assert hits[0].reading == pytest.approx(0.25)


def test_features_without_a_unit_or_that_never_rest_are_not_found():
    pooled = _pooled([[1.0, 1.0]])
    assert search(pooled, _statistics([0.0, 1.0], [0.0, 1.0]), limit=10) == []


@pytest.mark.parametrize("how", list(Pool))
def test_contrast_ranks_by_auroc_of_the_chosen_pool(how):
    draw = torch.Generator().manual_seed(0)
    maximum = torch.randn(60, 5, generator=draw).relu().tolist()
    mean = torch.randn(60, 5, generator=draw).relu().tolist()
    labels = (torch.rand(60, generator=draw) < 0.4).tolist()
    found = contrast(_pooled(maximum, mean), labels, how)
    values = torch.tensor(maximum if how is Pool.MAX else mean)
    assert [item.auroc for item in found] == sorted((item.auroc for item in found), reverse=True)
    for item in found:
        assert item.auroc == pytest.approx(roc_auc_score(labels, values[:, item.feature]), abs=1e-12)
        assert item.low <= item.auroc <= item.high
        fires = torch.tensor(maximum)[torch.tensor(labels), item.feature] > 0
        assert item.fires_positive == pytest.approx(float(fires.float().mean()))


def test_both_ways_puts_markers_of_the_negatives_first():
    pooled = _pooled([[0.0, 0.5], [0.0, 0.6], [0.0, 0.3], [1.0, 0.5], [1.0, 0.6], [1.0, 0.1]])
    labels = [True, True, True, False, False, False]
    assert contrast(pooled, labels, Pool.MAX)[0].feature == 1
    first = contrast(pooled, labels, Pool.MAX, both_ways=True)[0]
    assert (first.feature, first.auroc) == (0, 0.0)
