"""Requests between the engine and the scheduler of somebody else's vLLM."""

import pytest

from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.tap import Tap
from monitor.plugin.batcher import Begun, HostedBatcher
from monitor.vllm.operator import Seat
from tests.model.tiny import dictionary, maxima


class Steps:
    def __init__(self):
        self.shared, self.gone = True, []

    def plain(self, request_id):
        return self.shared

    def lost(self, request_id):
        self.gone.append(request_id)


@pytest.fixture
def steps():
    return Steps()


@pytest.fixture
def batcher(steps):
    tap = Tap(FeatureBank(dictionary(), maxima(), range(3, 9)), object())
    made = HostedBatcher(steps, Seat(tap, 2), static=False)
    made.woken = []
    made.wake = lambda: made.woken.append(True)
    return made


def test_a_request_of_vllm_keeps_its_name(batcher, steps):
    batcher.expect("cmpl-1")
    steps.shared = False
    batcher.add("cmpl-1", (1, 2, 3), 10)
    assert batcher.begun.get_nowait() == Begun("cmpl-1", False)
    assert batcher.gate.request_of("cmpl-1") == "cmpl-1"
    assert batcher.woken


def test_a_request_of_the_monitor_brings_its_prompt(batcher):
    batcher.add("probe", (1, 2, 3), 10)
    begun = batcher.begun.get_nowait()
    assert begun.own == ((1, 2, 3), 12)
    assert begun.shares
    assert batcher.gate.request_of(begun.name) == "probe"


def test_what_is_removed_is_dropped_by_vllm(batcher):
    batcher.expect("cmpl-1")
    batcher.add("cmpl-1", (1, 2, 3), 10)
    batcher.remove("cmpl-1")
    assert batcher.gate.take_gone() == ["cmpl-1"]
    assert batcher.gate.request_of("cmpl-1") is None


def test_the_first_failure_stands_and_nothing_runs_any_more(batcher):
    assert batcher.alive()
    batcher.fail("the check failed")
    batcher.stop(1.0)
    assert not batcher.alive()
    assert batcher.failed == "the check failed"


def test_what_vllm_drops_is_told_to_the_engine(batcher, steps):
    batcher.lost("cmpl-1")
    assert steps.gone == ["cmpl-1"]


def test_numbers_come_from_vllm(batcher):
    assert batcher.running() == 0
    assert batcher.cache_used() == 0
    batcher.in_pass, batcher.used = (lambda: 3), (lambda: 0.5)
    assert (batcher.running(), batcher.cache_used(), batcher.static) == (3, 0.5, False)
