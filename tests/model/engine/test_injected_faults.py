"""An exception at every call that the engine makes for one request, one at a time: the request ends alone.

A trace function counts the calls of this project's functions that are made for the marked request, and raises at one
of them. After each run its neighbours have the tokens that they have without it, and nothing is held any more.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import monitor
from monitor.errors import MonitorError, MonitoringFailed, Unavailable
from monitor.model.engine.paged import Limits
from monitor.model.engine.requests import GenerationRequest, Lease
from monitor.model.engine.sampler import Draw
from monitor.model.engine.sequence import Sequence
from monitor.model.engine.serial import SeparateBatcher
from monitor.model.tap.late_probes import LaterTaps
from monitor.records import (
    Action,
    Clamp,
    Decision,
    Detection,
    FinishReason,
    LaterProbe,
    Mode,
    Sampling,
    Severity,
    SuppressionPlan,
)
from tests.model.running import LAYER, Call, Running, running
from tests.model.tiny import WIDTH, Recorder, dictionary, loaded_model, prompt
from tests.waiting import wait_for

MARKED = "marked"
SEED = 3
NEW = 3
NEIGHBOURS = (1, 5)
PROBE = LaterProbe(LAYER + 1, np.ones(WIDTH, np.float32), 0.0, 1e6, 4.0)
PLAN = SuppressionPlan("policy", (40,), PROBE)
ROOT = str(Path(monitor.__file__).parent)
GUARDS = {"_broke", "_end", "fail", "pass_failed", "_not_clean", "withhold"}
"""What ends a request once something failed: a second fault inside of it is another matter."""


class Planted(Exception):
    """The fault."""


class Injection:
    """Raises at one call, by number, of those that are made for the marked request."""

    def __init__(self, at: int) -> None:
        self.at, self.calls, self.where = at, 0, ""

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or self.where or not self._concerns(frame):
            return
        self.calls += 1
        if self.calls == self.at:
            self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_qualname}"
            raise Planted(self.where)

    def _concerns(self, frame: FrameType) -> bool:
        """True in functions of this project, other than the guards, that are called for the marked request."""
        if not frame.f_code.co_filename.startswith(ROOT):
            return False
        mine, back = False, frame
        while back is not None and back.f_code.co_filename.startswith(ROOT):
            if back.f_code.co_name in GUARDS:
                return False
            mine |= marked(back)
            back = back.f_back
        return mine


def marked(frame: FrameType) -> bool:
    """True where a frame works for the marked request, and for no other."""
    local = frame.f_locals
    if isinstance(local.get("self"), Sequence):
        return local["self"].request_id.startswith(MARKED)
    if isinstance(local.get("self"), Draw):
        return local["self"].sampling.seed == SEED
    if frame.f_code.co_name in ("before", "after", "_score", "_prepare", "_deliver"):
        return False  # these go over all requests; what they call for one is given the one
    for name in ("sequence", "known", "request"):
        if isinstance(found := local.get(name), (Sequence, GenerationRequest)):
            return found.request_id.startswith(MARKED)
    return False


class Suppressing(Recorder):
    """Suppresses from its second block on, and detects something there."""

    def observe(self, block):
        super().observe(block)
        if len(self.blocks) < 2:
            return Decision()
        found = Detection(
            policy="policy",
            rule="rule",
            severity=Severity.LOW,
            category="test",
            action=Action.SUPPRESS,
            mode=Mode.ENFORCE,
            phase=block.phase,
            position=block.start,
            score=1.0,
            threshold=0.5,
            evidence=(),
        )
        detections = (found,) if len(self.blocks) == 2 else ()
        return Decision(detections, Action.SUPPRESS, (Clamp(40, -1.0),), ("policy",))


class Bench:
    """An engine that goes on from one injection to the next."""

    def __init__(self, run: Running) -> None:
        self.run, self.engine, self.count = run, run.engine, 0
        self.lease = Lease(run.bank.first, lambda: None)
        self.trace: Injection | None = None
        before, after = self.engine.before, self.engine.after

        def traced(step):
            def call(*args):
                sys.settrace(self.trace)
                try:
                    step(*args)
                finally:
                    sys.settrace(None)

            return call

        self.engine.before, self.engine.after = traced(before), traced(after)

    def submit(self, on_error: Action, **changes: Any) -> Call:
        call = Call(prompt(3, 20), Suppressing(on_error=on_error))
        self.count += 1
        request = GenerationRequest(
            f"{MARKED}-{self.count}",
            call.ids,
            Sampling(max_new_tokens=NEW, temperature=0.7, seed=SEED, stop=("\x00\x00",)),
            call.observer,
            call.observer,
            (Clamp(50, -1.0),),
            (PLAN,),
            include_tokens=True,
            lease=self.lease,
        )
        self.engine.submit(request, changes.get("emit", call.emit))
        return call

    def neighbours(self) -> list[Call]:
        return [self.run.call(prompt(n), new=5, temperature=0.7, seed=n) for n in NEIGHBOURS]

    def beside(self, injection: Injection | None, on_error: Action = Action.BLOCK) -> tuple[Call, list[Call]]:
        """The marked request and its neighbours, which begin in one pass."""
        laid, inner = threading.Event(), self.engine.before

        def note(spans, rows):
            inner(spans, rows)
            laid.set()

        self.engine.before = note
        with self.engine._loaded.passes:
            first = self.run.call(prompt(90), new=1)
            assert laid.wait(30)
            self.engine.before, self.trace = inner, injection
            mine = self.submit(on_error)
            others = self.neighbours()
        for call in (first, mine, *others):
            call.finished()
        self.trace = None
        return mine, others

    def given_back(self, where: str = "") -> None:
        """Nothing is held for anybody."""
        engine, bank = self.engine, self.run.bank
        wait_for(lambda: engine.running() == engine.queue_depth() == 0)
        assert engine.healthy()
        assert engine._sequences == {}
        wait_for(lambda: engine._outboxes == {})
        assert bank._slots._by_requests == {}, where
        assert engine._later is not None
        assert engine._later._running == {}, where
        assert self.lease._holders == 1, where


def bench(batcher: Any = None) -> Iterator[Bench]:
    loaded = loaded_model()
    with running(loaded, dictionary(), clampable=[40], limits=Limits(running=8), batcher=batcher) as run:
        later = LaterTaps(loaded.layers, run.tap, LAYER)
        later.attach()
        run.engine._later = later
        work = run.engine._work
        run.engine.ready(512) if work is not None else None
        run.engine._end_ids = frozenset()
        yield Bench(run)
        later.detach()


@pytest.fixture(scope="module")
def together() -> Iterator[Bench]:
    yield from bench()


@pytest.fixture(scope="module")
def in_turn() -> Iterator[Bench]:
    yield from bench(SeparateBatcher)


def tokens(calls: list[Call]) -> list[list[int]]:
    return [[token.token_id for token in call.tokens] for call in calls]


def walk(place: Bench, on_error: Action, step: int = 1) -> dict[str, int]:
    """Inject at every call, or every so many; how often at each function."""
    mine, others = place.beside(None)
    place.given_back()
    assert mine.finished().reason is FinishReason.LENGTH
    assert mine.finished().suppressions
    expected, seen = tokens(others), dict[str, int]()
    for at in range(1, 1000, step):
        injection = Injection(at)
        mine, others = place.beside(injection, on_error)
        if not injection.where:
            return seen
        assert tokens(others) == expected, injection.where
        assert all(call.finished().coverage.complete for call in others), injection.where
        place.given_back()
        last, where = mine.finished(), injection.where
        seen[where] = seen.get(where, 0) + 1
        if last.reason is FinishReason.LENGTH:
            continue  # what failed came behind its last event
        assert last.reason in (FinishReason.ERROR, FinishReason.POLICY), where
        assert isinstance(last.error, MonitoringFailed if on_error is Action.BLOCK else Unavailable), where
        assert mine.observer.failures, where
        shown = [token.position for token in mine.tokens]
        assert shown == list(range(len(shown))), where
        assert last.released <= len(shown) or not shown, where
    raise AssertionError("as many calls cannot be made for one request")


@pytest.mark.slow
@pytest.mark.parametrize(("on_error", "step"), [(Action.BLOCK, 1), (Action.ALLOW, 4)])
def test_one_request_ends_alone(together: Bench, on_error: Action, step: int) -> None:
    seen = walk(together, on_error, step)
    if step > 1:
        return
    names = {where.rpartition(".")[2] for where in seen}
    assert {"look", "saw", "drew", "end", "_lay_out", "_forget", "push", "uniform", "taken"} <= names, seen


@pytest.mark.slow
def test_one_request_ends_alone_where_requests_take_turns(in_turn: Bench) -> None:
    assert len(walk(in_turn, Action.BLOCK, 3)) > 10


@pytest.mark.slow
def test_a_submission_that_fails_holds_nothing(together: Bench) -> None:
    def submit(injection: Injection) -> bool:
        sys.settrace(injection)
        try:
            together.submit(Action.BLOCK, emit=lambda _: None)
        except (Planted, MonitorError):
            return False
        finally:
            sys.settrace(None)
        together.engine.cancel(f"{MARKED}-{together.count}")
        return True

    counting = Injection(0)
    counting._concerns = lambda frame: frame.f_code.co_filename.startswith(ROOT)
    assert submit(counting)
    together.given_back()
    assert counting.calls > 20
    for at in range(1, counting.calls + 1):
        injection = Injection(at)
        injection._concerns = counting._concerns
        submit(injection)
        together.given_back(injection.where)
    together.run.call(prompt(1), new=1).finished()
    mine, _ = together.beside(None)
    assert mine.finished().reason is FinishReason.LENGTH


class TestWhatTheCallerGives:
    """The same with what comes from outside: observers, callbacks and settings that raise."""

    def alone(self, place: Bench, spoil) -> Call:
        _, others = place.beside(None)
        expected = tokens(others)
        submit = place.submit

        def spoilt(on_error: Action, **changes: Any) -> Call:
            call = submit(on_error, **changes)
            spoil(call, place.engine._sequences[f"{MARKED}-{place.count}"])
            return call

        place.submit = spoilt
        try:
            mine, others = place.beside(None)
        finally:
            place.submit = submit
        assert tokens(others) == expected
        place.given_back()
        assert mine.finished().error is not None
        assert mine.finished().reason in (FinishReason.ERROR, FinishReason.POLICY)
        return mine

    def raising(self, *_args: object, **_options: object) -> Any:
        raise Planted

    @pytest.mark.slow
    def test_an_observer_that_cannot_fail_either(self, together: Bench) -> None:
        self.alone(together, lambda call, _: setattr(call.observer, "observe_batch", self.raising))

    @pytest.mark.slow
    def test_somebody_who_is_told_that_it_began(self, together: Bench) -> None:
        self.alone(
            together, lambda _, sequence: object.__setattr__(sequence.request, "admitted", self.raising)
        )

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "sampling",
        [
            Sampling(NEW, 0.7, top_k=1 << 70),
            Sampling(NEW, 1.0, seed=3, top_p="x"),
        ],
    )
    def test_sampling_that_no_tensor_holds(self, together: Bench, sampling: Sampling) -> None:
        def spoil(_: Call, sequence: Sequence) -> None:
            sequence.draw.sampling, sequence.draw.greedy = sampling, False

        self.alone(together, spoil)

    @pytest.mark.slow
    def test_a_clamp_that_no_tensor_holds(self, together: Bench) -> None:
        huge = Clamp(50, 1.0)
        object.__setattr__(huge, "target", 1e300)
        self.alone(together, lambda _, sequence: setattr(sequence, "clamps", (huge,)))

    @pytest.mark.slow
    def test_a_clamp_of_a_feature_that_nobody_holds(self, together: Bench) -> None:
        self.alone(together, lambda _, sequence: setattr(sequence, "clamps", (Clamp(77, -1.0),)))
