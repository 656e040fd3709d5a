"""Records that cannot hold nonsense, whoever makes them."""

from dataclasses import replace

import pytest

from monitor.records import LARGEST_TARGET, Clamp

TOO_FAR = [
    float("nan"),
    float("inf"),
    -float("inf"),
    1e30,
    -1e30,
    LARGEST_TARGET * 1.01,
    -LARGEST_TARGET * 1.01,
]


@pytest.mark.parametrize("target", TOO_FAR)
def test_no_door_makes_a_clamp_that_would_compute_infinities(target):
    """Requests, policies, notebooks and benchmarks all make this record."""
    with pytest.raises(ValueError, match="target of feature 3 is"):
        Clamp(3, target)
    with pytest.raises(ValueError, match="write a number from -100 to 100"):
        replace(Clamp(3, 0.0), target=target)


@pytest.mark.parametrize("target", [LARGEST_TARGET, -LARGEST_TARGET, 0.0, -2.5])
def test_sensible_targets_are_kept_as_they_are(target):
    assert Clamp(3, target).target == target
