from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from monitor.dictionary.explore.auroc import auroc


def _scores(m=30, n=45, columns=6):
    draw = torch.Generator().manual_seed(1)
    positive = torch.randn(m, columns, generator=draw) + torch.linspace(-1, 2, columns)
    negative = torch.randn(n, columns, generator=draw)
    return positive.round(decimals=1).relu(), negative.round(decimals=1).relu()


def test_it_is_the_rank_statistic_with_ties_counted_half():
    positive, negative = _scores()
    found = auroc(positive, negative)
    truth = np.r_[np.ones(30), np.zeros(45)]
    for column in range(6):
        scores = torch.cat([positive[:, column], negative[:, column]]).numpy()
        assert float(found.value[column]) == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)


def test_the_interval_is_delongs_on_the_logit_scale():
    positive, negative = _scores()
    found = auroc(positive, negative)
    for column in range(6):
        p, q = positive[:, column].double().numpy(), negative[:, column].double().numpy()
        wins = (p[:, None] > q[None, :]) + 0.5 * (p[:, None] == q[None, :])
        value = wins.mean()
        error = np.sqrt(wins.mean(1).var(ddof=1) / len(p) + wins.mean(0).var(ddof=1) / len(q))
        logit, reach = np.log(value / (1 - value)), 1.959963984540054 * error / (value * (1 - value))
        assert float(found.low[column]) == pytest.approx(1 / (1 + np.exp(-(logit - reach))), abs=1e-9)
        assert float(found.high[column]) == pytest.approx(1 / (1 + np.exp(-(logit + reach))), abs=1e-9)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    draw = torch.Generator().manual_seed(5)
    found = auroc(torch.randn(40, 2000, generator=draw) + 1.0, torch.randn(60, 2000, generator=draw))
    truth = 0.7602  # P(N(1, 2) > 0)
    covered = ((found.low <= truth) & (truth <= found.high)).double().mean()
    assert 0.93 <= float(covered) <= 0.97


def test_perfect_order_has_a_bound_below_one():
    found = auroc(torch.arange(10.0)[:, None] + 10, torch.arange(10.0)[:, None])
    assert float(found.value) == 1.0
    assert float(found.low) == pytest.approx(0.025 ** (1 / 10))
    assert float(found.high) == 1.0


def test_a_feature_that_never_fires_says_nothing():
    found = auroc(torch.zeros(5, 1), torch.zeros(7, 1))
    assert float(found.value) == 0.5
    assert float(found.low) < 0.5 < float(found.high)


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="two rows of each class"):
        auroc(torch.zeros(1, 2), torch.zeros(5, 2))
