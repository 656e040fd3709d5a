"""The fair lock: threads share time, not passes. The clock is the test's, so that a busy machine changes nothing."""

import threading
import time
from collections.abc import Callable

import pytest

from monitor.model.load.fair_lock import _KEPT, FairLock
from tests.waiting import wait_for

GAP = 0.002


class Clock:
    """Seconds that pass only when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Pair:
    """Two threads that run passes of different lengths, each coming back a moment after its last one."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.turns = FairLock(self.clock)
        self.used: dict[str, float] = {}
        self._over: set[str] = set()

    def run(self, seconds: float, **holds: float) -> None:
        self.used = dict.fromkeys(holds, 0.0)
        end = self.clock.now + seconds
        threads = [threading.Thread(target=self._work, args=(*item, end)) for item in holds.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
            assert not thread.is_alive()

    def _work(self, name: str, hold: float, end: float) -> None:
        while self.clock.now < end:
            with self.turns:
                # Whoever else is there wants the model all the time.
                wait_for(lambda: bool(self.turns._waiting or self._over))
                self.clock.now += hold
                self.used[name] += hold
            self.clock.now += GAP
        self._over.add(name)
        self.clock.now += 1


def test_short_passes_get_as_much_time_as_long_ones() -> None:
    pair = Pair()
    pair.run(20, engine=0.01, scorer=0.2)
    # The model idles between two passes of the engine: that is the engine's time.
    engine = pair.used["engine"] * (1 + GAP / 0.01)
    assert engine == pytest.approx(pair.used["scorer"], rel=0.25)


def test_equal_passes_alternate() -> None:
    pair = Pair()
    pair.run(10, one=0.05, other=0.05)
    assert pair.used["one"] == pytest.approx(pair.used["other"], rel=0.1)


def _one_pass(turns: FairLock, clock: Clock, hold: float, done: Callable[[], object] = lambda: None) -> None:
    with turns:
        clock.now += hold
        done()


def test_who_stayed_away_has_saved_up_no_time() -> None:
    clock = Clock()
    turns, order = FairLock(clock), list[str]()
    for _ in range(100):
        _one_pass(turns, clock, 1.0)
        clock.now += 1  # longer than anybody is waited for
    holds = threading.Event()

    def newcomer() -> None:
        for _ in range(5):
            _one_pass(turns, clock, 0.6, lambda: order.append("newcomer"))

    thread = threading.Thread(target=newcomer)
    keeper = threading.Thread(target=lambda: _one_pass(turns, clock, 0, lambda: holds.wait(60)))
    keeper.start()
    wait_for(lambda: turns._owner is not None)
    thread.start()
    wait_for(lambda: len(turns._waiting) == 1)

    def when_all_wait() -> None:
        wait_for(lambda: len(turns._waiting) == 2)
        holds.set()

    mine = threading.Thread(target=when_all_wait)
    mine.start()
    _one_pass(turns, clock, 1.0, lambda: order.append("old hand"))
    thread.join(60)
    mine.join(60)
    keeper.join(60)
    # A hundred seconds behind, and yet no more than a pass or two go first.
    assert order.index("old hand") <= 2
    assert len(order) == 6


def test_nobody_is_waited_for_in_vain() -> None:
    turns = FairLock()
    for _ in range(3):
        with turns:
            time.sleep(0.002)
    began = time.monotonic()
    other = threading.Thread(target=lambda: _one_pass(turns, Clock(), 0))
    other.start()
    other.join(60)
    assert not other.is_alive()
    assert time.monotonic() - began < 30


def test_the_holder_may_take_it_again_and_an_error_lets_go() -> None:
    turns = FairLock()
    with pytest.raises(KeyError), turns, turns:
        raise KeyError
    other = threading.Thread(target=lambda: _one_pass(turns, Clock(), 0))
    other.start()
    other.join(60)
    assert not other.is_alive()


def test_one_at_a_time_and_threads_that_ended_are_forgotten() -> None:
    turns, inside, most = FairLock(), [0], [0]

    def work() -> None:
        for _ in range(20):
            with turns:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0)
                inside[0] -= 1

    for _ in range(5):
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
            assert not thread.is_alive()
    assert most == [1]
    assert len(turns._shares) <= _KEPT
