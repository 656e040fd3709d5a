"""The edits that are compared: which there are, and what they do to residuals."""

import pytest
import torch

from monitor.errors import InputError, PolicyError
from monitor.lab.cost.edits import (
    ABLATED,
    ABOUT,
    DENSE,
    DETECTORS,
    DROPPED,
    EVERYWHERE,
    MULTIPLES,
    NOTHING,
    OWN,
    PROJECTED,
    difference_of_means,
    ways,
)
from monitor.lab.pair import need_statistics
from monitor.records import Clamp, Where
from tests.policy.conftest import policy, rule


@pytest.fixture(scope="module")
def clamping(opened):
    """Clamps eight features that are ever active, and reads others."""
    alive = need_statistics(opened.dictionary).maximum.argsort(descending=True)[:11].tolist()
    reads = rule(features=((alive[8], 0.5), (alive[9], 2.0), (alive[10], -1.0)))
    return policy(reads, clamps=tuple(Clamp(feature, -1.0) for feature in alive[:8]))


@pytest.fixture(scope="module")
def made(opened, clamping):
    direction = torch.ones(opened.loaded.d_model)
    return list(ways(opened, clamping, direction, [-0.5, -2.0]))


def test_every_edit_is_measured_at_every_strength(made):
    found = {}
    for way in made:
        found.setdefault(way.name, []).append(way.strength)
    assert made[0].name == NOTHING
    assert found == {
        NOTHING: [0.0],
        OWN: [-0.5, -2.0],
        EVERYWHERE: [-0.5],
        DROPPED: [-0.5, -2.0],
        DETECTORS: [-0.5, -2.0],
        ABLATED: [2, 4, 8],
        DENSE: list(MULTIPLES),
        PROJECTED: list(MULTIPLES),
    }
    assert set(found) - {NOTHING} == set(ABOUT)


def test_edits_differ_from_each_other_and_leave_the_first_token_alone(opened, made):
    x = opened.residuals(torch.tensor([opened.ids("I want more power over them")]))
    found = {(way.name, way.strength): way.edit(x, 0) for way in made}
    assert torch.equal(found[NOTHING, 0.0], x)
    assert torch.equal(found[DENSE, 2.0][:, 1:], x[:, 1:] - 2)
    for edited in found.values():
        assert torch.equal(edited[:, 0], x[:, 0])
    everywhere, own = found[EVERYWHERE, -0.5], found[OWN, -0.5]
    assert float((everywhere - x).norm()) > float((own - x).norm())


def test_some_of_the_edits_beside_none(opened, clamping):
    direction = torch.ones(opened.loaded.d_model)
    found = [way.name for way in ways(opened, clamping, direction, [-1.0], [OWN, DENSE])]
    assert found == [NOTHING, OWN, *[DENSE] * len(MULTIPLES)]
    with pytest.raises(InputError, match="no edit is called 'magic'; there are: policy, "):
        next(ways(opened, clamping, direction, [-1.0], ["magic"]))


def test_what_clamps_nothing_cannot_be_measured(opened):
    with pytest.raises(PolicyError, match="`p` clamps no feature; there is nothing to measure"):
        next(ways(opened, policy(rule()), torch.zeros(1), [-1.0]))


def test_clamps_that_hold_everywhere_are_not_tried_twice(opened, clamping):
    wide = policy(
        *clamping.rules, clamps=tuple(Clamp(c.feature, -1.0, Where.EVERYWHERE) for c in clamping.clamps)
    )
    found = [way.name for way in ways(opened, wide, torch.zeros(opened.loaded.d_model), [-0.5])]
    assert EVERYWHERE not in found


def test_the_difference_of_means_is_that(opened):
    positive = [opened.ids("I want more power"), opened.ids("more")]
    negative = [opened.ids("The train leaves at noon")]

    def mean(texts):
        rows = [opened.residuals(torch.tensor([ids]))[0, 1:].double() for ids in texts]
        return torch.cat(rows).mean(0)

    expected = mean(positive) - mean(negative)
    torch.testing.assert_close(
        difference_of_means(opened, positive, negative).double(), expected, atol=1e-4, rtol=1e-3
    )
