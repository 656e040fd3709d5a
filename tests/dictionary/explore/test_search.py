from __future__ import annotations

import math

import pytest
import torch

from monitor.dictionary.cards.statistics import FeatureStatistics
from monitor.dictionary.explore.search import search
from tests.dictionary.explore.pooled_texts import made_pooled_texts


def _statistics(density, maximum=None):
    return FeatureStatistics(
        maximum=torch.tensor(maximum or [1.0] * len(density)), density=torch.tensor(density), tokens=100_000
    )


def test_firing_on_all_texts_beats_firing_on_one_and_rare_beats_common():
    pooled = made_pooled_texts([[0.8, 0.8, 0.8, 0.0], [0.8, 0.8, 0.0, 0.0], [0.8, 0.8, 0.0, 0.0]])
    hits = search(pooled, _statistics([0.001, 0.2, 0.001, 0.001]), limit=10)
    assert [hit.feature for hit in hits] == [0, 2, 1]
    assert [hit.fired for hit in hits] == [3, 1, 3]
    assert hits[1].peaks == (4, 0, 0)


def test_the_score_is_the_stated_formula():
    hits = search(made_pooled_texts([[1.0], [0.0]]), _statistics([0.01], [2.0]), limit=10)
    surprise = -math.log2(1 - 0.99**10)
    assert hits[0].score == pytest.approx(surprise / 2 * 0.25 * 0.5, rel=1e-6)
    assert hits[0].reading == pytest.approx(0.25)


def test_features_without_a_unit_or_that_never_rest_are_not_found():
    pooled = made_pooled_texts([[1.0, 1.0]])
    assert search(pooled, _statistics([0.0, 1.0], [0.0, 1.0]), limit=10) == []
