"""What stands around a feature."""

import pytest
import torch

from monitor.lab.demonstrations.choice import candidates, contrast_of
from monitor.lab.demonstrations.related import Shared, neighbours, shared_features
from tests.lab.demonstrations.planted import PLANTED


@pytest.fixture(scope="module")
def contrast(opened):
    return contrast_of(opened, PLANTED)


def test_neighbours_point_the_same_way(opened, contrast):
    feature = candidates(opened, contrast)[0].feature
    found = neighbours(opened, feature, contrast)
    decoder = torch.nn.functional.normalize(opened.dictionary.autoencoder.decoder.float(), dim=-1)
    cosines = decoder @ decoder[feature]
    cosines[feature] = -1
    best = cosines.topk(len(found.nearest))
    assert [one.feature for one in found.nearest] == best.indices.tolist()
    assert [one.cosine for one in found.nearest] == pytest.approx(best.values.tolist(), abs=1e-3)
    assert found.share.trials == len(found.nearest)
    assert found.random.trials == 400
    assert found.random.value < 0.5
    assert neighbours(opened, feature, contrast) == found, "the same features are drawn"


def test_two_texts_about_films_share_a_feature_of_films(opened, contrast):
    found = shared_features(opened, PLANTED, contrast)
    assert len({(one.first, one.second) for one in found.pairs}) == len(found.pairs) == 20
    assert found.share.value > 0.5
    assert any("movie" in one.label for one in found.pairs if one.worked)


@pytest.mark.parametrize(
    ("fires", "other", "worked"), [(0.5, 0.25, True), (0.4, 0.0, False), (1.0, 0.6, False), (0.0, 0.0, False)]
)
def test_what_fires_elsewhere_as_often_stands_for_nothing(fires, other, worked):
    assert Shared(0, 1, 5, "", fires, other).worked is worked
