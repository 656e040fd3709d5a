from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from monitor.dictionary.evaluation.bootstrap import auroc_by_group, weighted_auroc


def _rows(seed=0, rows=60):
    draw = np.random.default_rng(seed)
    labels = draw.random(rows) < 0.4
    return np.round(draw.normal(size=rows) + labels, 1), labels, draw


def test_weights_count_as_repeated_rows():
    scores, labels, draw = _rows()
    weights = draw.integers(0, 4, (5, 60))
    found = weighted_auroc(scores, labels, weights.astype(float))
    for row, weight in zip(found, weights, strict=True):
        assert row == pytest.approx(
            roc_auc_score(np.repeat(labels, weight), np.repeat(scores, weight)), abs=1e-12
        )


def test_a_resample_without_a_class_is_nan():
    scores, labels, _ = _rows()
    assert np.isnan(weighted_auroc(scores, labels, labels[None].astype(float)))[0]


def test_rows_that_are_copies_widen_the_interval_only_when_groups_are_known():
    scores, labels, _ = _rows(rows=80)
    scores, labels = np.repeat(scores, 5), np.repeat(labels, 5)
    as_rows = auroc_by_group(scores, labels, np.arange(400))
    as_groups = auroc_by_group(scores, labels, np.repeat(np.arange(80), 5))
    assert as_rows.value == as_groups.value == pytest.approx(roc_auc_score(labels, scores))
    assert as_groups.high - as_groups.low > 1.8 * (as_rows.high - as_rows.low)


@pytest.mark.slow
def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    draw = np.random.default_rng(3)
    covered = 0
    for seed in range(200):
        labels = np.arange(120) < 60
        found = auroc_by_group(draw.normal(size=120) + labels, labels, np.arange(120), seed=seed)
        covered += found.low <= 0.7602 <= found.high
    assert 178 <= covered <= 199


def test_perfect_order_and_few_groups():
    labels = np.arange(40) >= 20
    perfect = auroc_by_group(np.arange(40.0), labels, np.arange(40))
    assert (perfect.value, perfect.high) == (1.0, 1.0)
    assert perfect.low == pytest.approx(0.025 ** (1 / 20))
    few = auroc_by_group(np.random.default_rng(0).normal(size=40), labels, np.arange(40) % 3)
    assert few.low < few.value < few.high
