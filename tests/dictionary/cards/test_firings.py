"""Samples for labels: which places are drawn, of which documents, and with which chances."""

from __future__ import annotations

import math

import pytest
import torch

from monitor.dictionary.cards.contexts import EMPTY, ActivationBatch
from monitor.dictionary.cards.description import DescribeOptions, describe
from monitor.dictionary.cards.firings import FiringSample, PlaceSample
from tests.dictionary.cards.plain_contexts import plain
from tests.dictionary.small_dictionary import FEATURES, residuals_of, small_autoencoder, small_rows


def batch(activations, documents, first=0):
    n = len(activations)
    return ActivationBatch(
        ids=torch.arange(first, first + n),
        rows=torch.zeros(n, dtype=torch.int64),
        documents=torch.tensor(documents),
        activations=torch.tensor(activations, dtype=torch.float32),
    )


@pytest.mark.parametrize("batch_tokens", [16, 64])
def test_each_place_is_one_where_the_feature_fires_in_a_document_of_its_own(batch_tokens):
    rows = small_rows(23, 16)
    options = DescribeOptions(
        math.inf, keep=2, before=3, after=2, batch_tokens=batch_tokens, firings=5, places=40
    )
    found = describe(rows, residuals_of, small_autoencoder(), options)
    best, _, _ = plain(rows)
    ids = torch.cat([row.ids for row in rows])
    for feature in range(FEATURES):
        own = found.firings.of(feature)
        documents = found.firings.document[own].tolist()
        assert len(documents) == len(set(documents)) == min(5, len(best[feature]))
        assert set(documents) <= set(best[feature])
        for activation, levels, window in zip(
            found.firings.activation[own], found.firings.levels[own], found.firings.ids[own], strict=True
        ):
            assert activation > 0
            assert float(levels[3]) == float(activation)
            assert int(window[3]) in ids


def test_strong_places_are_drawn_more_often_and_weak_ones_sometimes():
    strong = 0
    for seed in range(300):
        sample = FiringSample(1, keep=1, before=0, after=0, seed=seed)
        sample.update(batch([[1.0], [0.0], [4.0]], [0, 1, 2]))
        strong += int(sample.ids[0, 0]) == 2
    assert 210 < strong < 270  # 4 in 5


def test_places_of_later_batches_have_the_same_chance():
    late = 0
    for seed in range(300):
        sample = FiringSample(1, keep=1, before=0, after=0, seed=seed)
        for first in range(3):
            sample.update(batch([[2.0]], [first], first))
        late += int(sample.ids[0, 0]) == 2
    assert 70 < late < 130


def test_a_document_that_goes_on_keeps_one_place():
    sample = FiringSample(2, keep=3, before=1, after=1)
    sample.update(batch([[1.0, 0.0], [2.0, 0.0]], [0, 0]))
    sample.update(batch([[3.0, 1.0], [1.0, 0.0]], [0, 1], first=10))
    assert sample.document[sample.of(0)].sort().values.tolist() == [0, 1]
    assert sample.document[sample.of(1)].tolist() == [0]
    assert sample.ids[sample.of(1)].tolist() == [[EMPTY, 10, EMPTY]]
    assert sample.of(1) == slice(2, 3)


def test_places_of_the_corpus_are_drawn_evenly_with_what_is_active_there():
    drawn = torch.zeros(6)
    for seed in range(300):
        sample = PlaceSample(keep=2, before=1, after=0, seed=seed)
        counted = torch.tensor([True, True, False])
        sample.update(batch([[0.0, 1.0], [2.0, 3.0], [1.0, 1.0]], [0, 0, 1]), counted)
        sample.update(
            batch([[0.0, 0.0], [5.0, 0.0], [1.0, 0.0]], [2, 2, 3], first=3), torch.ones(3, dtype=torch.bool)
        )
        found = sample.places
        assert len(found.ids) == 2
        for place, ids in enumerate(found.ids[:, 1].tolist()):
            drawn[ids] += 1
            assert found.feature[found.place == place].tolist() == [[1], [0, 1], [], [], [0], [0]][ids]
    assert drawn[2] == 0
    assert float(drawn[[0, 1, 3, 4, 5]].min()) > 85  # 120 of 300 each
    assert float(drawn.max()) < 155


def test_nothing_drawn_is_no_places():
    assert len(PlaceSample(keep=2, before=1, after=0).places.ids) == 0
