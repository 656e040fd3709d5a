"""Slots: nobody's feature moves while it is held, everybody gets back what they gave."""

import random

import pytest

from monitor.errors import ConfigurationError, DictionaryError, Overloaded
from monitor.model.tap.slots import Slots


class Filled(dict[int, int]):
    def put(self, slot: int, feature: int) -> None:
        if feature >= 1000:
            raise DictionaryError("no such feature")
        self[slot] = feature


def slots(first: list[int], *, spare: int = 4, reserve: int = 6) -> tuple[Slots, Filled]:
    filled = Filled()
    return Slots(first, filled.put, spare=spare, reserve=reserve), filled


def test_the_first_host_has_the_first_slots_in_order() -> None:
    held, filled = slots([9, 3, 7])
    assert [held.slot(f) for f in (9, 3, 7)] == [0, 1, 2]
    assert filled == {0: 9, 1: 3, 2: 7}
    assert (held.read, held.used, held.width) == (3, 3, 13)


def test_features_of_requests_are_computed_but_not_read() -> None:
    held, _ = slots([9, 3, 7])
    held.acquire_for_request([3, 50])
    assert (held.read, held.used) == (3, 4)
    held.release_for_request([3, 50])
    assert (held.read, held.used) == (3, 3)
    with pytest.raises(KeyError):
        held.slot(50)


def test_requests_share_the_spare_slots_only() -> None:
    held, _ = slots([1, 2], spare=3)
    held.acquire_for_request([1, 2, 10, 11])
    held.acquire_for_request([10, 12])
    with pytest.raises(Overloaded):
        held.acquire_for_request([13])
    held.release_for_request([10, 12])
    held.acquire_for_request([13])


def test_policies_leave_the_spare_slots_alone() -> None:
    held, _ = slots([1, 2], spare=3, reserve=2)
    held.acquire_for_request([20, 21, 22])
    held.acquire_for_policies([1, 30, 31])
    with pytest.raises(ConfigurationError, match="1 features that are not watched yet, and 0 more fit"):
        held.acquire_for_policies([1, 32])
    held.release_for_policies([1, 2])
    held.acquire_for_policies([1, 32])
    assert held.slot(1) == 0


def test_all_or_none() -> None:
    held, _ = slots([1, 2])
    with pytest.raises(DictionaryError):
        held.acquire_for_policies([5, 6, 1000])
    assert (held.read, held.used) == (2, 2)
    with pytest.raises(DictionaryError):
        held.acquire_for_request([5, 2000])
    assert held.used == 2


def test_a_thousand_comings_and_goings() -> None:
    chance = random.Random(0)
    held, filled = slots(list(range(8)), spare=8, reserve=8)
    inside: list[tuple[bool, list[int]]] = []
    for _ in range(1000):
        if inside and chance.random() < 0.5:
            host, features = inside.pop(chance.randrange(len(inside)))
            (held.release_for_policies if host else held.release_for_request)(features)
        else:
            host, features = chance.random() < 0.3, chance.sample(range(40), chance.randint(1, 5))
            try:
                (held.acquire_for_policies if host else held.acquire_for_request)(features)
            except (Overloaded, ConfigurationError):
                continue
            inside.append((host, features))
        for host, features in inside:
            assert all(filled[held.slot(f)] == f for f in features)
            assert all(held.slot(f) < (held.read if host else held.used) for f in features)
    for host, features in inside:
        (held.release_for_policies if host else held.release_for_request)(features)
    assert (held.read, held.used) == (8, 8)
    assert [held.slot(f) for f in range(8)] == list(range(8))
