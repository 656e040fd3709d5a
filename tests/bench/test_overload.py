"""The checks of the overload measurement, on known numbers."""

import asyncio
from types import SimpleNamespace

import pytest

from monitor.bench.overload import LoadPhase, _closed, _numbers, _open, _quantile, judge


def phase(name="capacity", accepted=(), refused=(), wrong=None, resident=None):
    made = LoadPhase(name, 10.0, len(accepted) + len(refused), list(accepted), list(refused))
    made.wrong.update(wrong or {})
    made.resident = resident or [100] * 10
    return made


CAPACITY = phase(accepted=[0.1] * 100)


def overload(**changes):
    return phase("overload", **{"accepted": [0.15] * 90, "refused": [0.01] * 300, **changes})


def held(capacity, over):
    return list(judge(capacity, over, slower=2.0, growth=0.05).values())


def test_all_checks_hold():
    assert held(CAPACITY, overload()) == [True] * 6
    first, *_ = judge(CAPACITY, overload(), 2.0, 0.05)
    assert first == "p99 of served calls is 1.50 times that at capacity (at most 2)"


@pytest.mark.parametrize(
    ("capacity", "over", "failing"),
    [
        ({}, {"accepted": [0.3] * 90}, 0),
        ({}, {"wrong": {"UNAVAILABLE: x": 1}}, 1),
        ({}, {"refused": [0.2] * 300}, 2),
        ({}, {"accepted": [0.15] * 60}, 3),
        ({}, {"resident": [100] * 6 + [110] * 4}, 4),
        ({"refused": [0.01]}, {}, 5),
        ({"wrong": {"INTERNAL: x": 2}}, {}, 5),
    ],
)
def test_each_check_can_fail(capacity, over, failing):
    found = held(phase(**{"accepted": [0.1] * 100, **capacity}), overload(**over))
    assert [place for place, holds in enumerate(found) if not holds] == [failing]


def test_growth_is_from_the_second_fifth_to_the_last():
    assert phase(resident=[50, 100, 100, 100, 120]).growth == pytest.approx(0.2)
    assert phase(resident=[50, 50, 100, 100, 100, 100, 100, 100, 130, 130]).growth == pytest.approx(0.3)


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 3), (0.99, 4), (1.0, 4)])
def test_quantiles(share, value):
    assert _quantile([4, 1, 3, 2], share) == value
    assert _quantile([], share) != _quantile([], share), "of nothing there is none"


def test_a_phase_in_one_line_and_as_numbers():
    line = overload(wrong={"INTERNAL: x": 1}).line()
    assert "offered    39.0/s  served     9.0/s  p50 150 ms  p99 150 ms  refused 30.0/s in p99 10 ms" in line
    assert line.endswith("WRONG {'INTERNAL: x': 1}")
    found = _numbers(overload())
    assert (found["served"], found["refused"], found["growth"]) == (90, 300, 0.0)
    assert _numbers(phase(resident=[5]))["growth"] is None


class Client:
    """Counts calls and how many there are at once."""

    def __init__(self, seconds):
        self.seconds, self.running, self.most = seconds, 0, 0

    async def call(self, phase):
        phase.offered += 1
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(self.seconds)
        self.running -= 1
        phase.accepted.append(self.seconds)


PROCESS = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=7))


def test_callers_wait_for_their_answer_and_arrivals_do_not():
    client = Client(0.01)
    done = asyncio.run(_closed(LoadPhase("closed"), client, PROCESS, 3, 0.1))
    assert client.most == 3
    assert done.offered == len(done.accepted) <= 3 * 11
    assert done.resident[0] == 7
    client = Client(0.05)
    done = asyncio.run(_open(LoadPhase("open"), client, PROCESS, 400.0, 0.1))
    assert client.most > 5
    assert done.offered == len(done.accepted)
    assert done.seconds < 0.5
