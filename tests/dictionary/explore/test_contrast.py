from __future__ import annotations

import pytest
import torch
from sklearn.metrics import roc_auc_score

from monitor.dictionary.explore.contrast import TextPooling, contrast
from tests.dictionary.explore.pooled_texts import made_pooled_texts


@pytest.mark.parametrize("how", list(TextPooling))
def test_contrast_ranks_by_auroc_of_the_chosen_pool(how):
    draw = torch.Generator().manual_seed(0)
    maximum = torch.randn(60, 5, generator=draw).relu().tolist()
    mean = torch.randn(60, 5, generator=draw).relu().tolist()
    labels = (torch.rand(60, generator=draw) < 0.4).tolist()
    found = contrast(made_pooled_texts(maximum, mean), labels, how)
    values = torch.tensor(maximum if how is TextPooling.MAX else mean)
    assert [item.auroc for item in found] == sorted((item.auroc for item in found), reverse=True)
    for item in found:
        assert item.auroc == pytest.approx(roc_auc_score(labels, values[:, item.feature]), abs=1e-12)
        assert item.low <= item.auroc <= item.high
        fires = torch.tensor(maximum)[torch.tensor(labels), item.feature] > 0
        assert item.fires_positive == pytest.approx(float(fires.float().mean()))


def test_both_ways_puts_markers_of_the_negatives_first():
    pooled = made_pooled_texts([[0.0, 0.5], [0.0, 0.6], [0.0, 0.3], [1.0, 0.5], [1.0, 0.6], [1.0, 0.1]])
    labels = [True, True, True, False, False, False]
    assert contrast(pooled, labels, TextPooling.MAX)[0].feature == 1
    first = contrast(pooled, labels, TextPooling.MAX, both_ways=True)[0]
    assert (first.feature, first.auroc) == (0, 0.0)
