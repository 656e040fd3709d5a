"""A policy set's columns stay while a pass reads them, even where the caller leaves and the set goes in that moment."""

import threading
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from monitor.errors import ModelError, Overloaded, Unavailable
from monitor.model.engine.engine import Engine
from monitor.model.engine.paged import Limits
from monitor.model.engine.requests import GenerationRequest, Lease, ScoreJob, ScoreOutcome
from monitor.model.engine.scorer import Scorer
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.late_probes import LaterTaps
from monitor.model.tap.tap import Tap
from monitor.records import Clamp, Decision, FinishReason, LaterProbe, Sampling, SuppressionPlan, WatchPlan
from tests.model.running import LAYER, Call
from tests.model.tiny import WIDTH, Recorder, dictionary, loaded_model, maxima, prompt

FEATURES = tuple(range(60, 70))


class World:
    """A bank whose first set names three features, and a later set that names ten others."""

    def __init__(self) -> None:
        self.loaded = loaded_model()
        self.bank = FeatureBank(dictionary(), maxima(), range(3), reserve=len(FEATURES))
        self.tap = Tap(self.bank, self.loaded.layers[LAYER])
        self.tap.attach()

    def lease(self) -> Lease:
        release = self.bank.hold(FEATURES)
        return Lease(self.bank.columns(WatchPlan(FEATURES)), release)

    def empty(self) -> bool:
        """True where nobody holds what the later set names."""
        return self.bank.in_use == 3


def leaving_in(engine: Engine, leave: Callable[[], None]) -> None:
    """Leave in the second pass, when it is too late to leave the pass."""
    drop, seen = engine._drop_cancelled, iter(range(2))

    def dropped() -> None:
        drop()
        if next(seen, 0) == 1:
            leave()

    engine._drop_cancelled = dropped


@pytest.mark.slow
@pytest.mark.parametrize("clamps", [(), (Clamp(60, -1.0),)])
def test_a_caller_of_a_retired_set_leaves_in_the_middle_of_a_pass(clamps: tuple[Clamp, ...]) -> None:
    world = World()
    engine = Engine(world.loaded, world.bank, world.tap, limits=Limits(running=4, batch_tokens=96))
    engine.start()
    try:
        lease = world.lease()

        def leave() -> None:
            engine.cancel("old")
            lease.release()

        leaving_in(engine, leave)
        # Clamps that begin here are looked up in the very pass in which the set goes.
        gone = Call(prompt(2), Recorder(decision=Decision(clamps=clamps)))
        stays = Call(prompt(3), Recorder())
        engine.submit(
            GenerationRequest(
                "old",
                gone.ids,
                Sampling(max_new_tokens=60),
                gone.observer,
                gone.observer,
                lease=lease,
            ),
            gone.emit,
        )
        engine.submit(
            GenerationRequest("new", stays.ids, Sampling(max_new_tokens=20), stays.observer, stays.observer),
            stays.emit,
        )
        assert gone.finished().reason is FinishReason.CANCELLED
        assert stays.finished().coverage.complete
        assert stays.finished().error is None
        assert engine.healthy()
        assert world.empty()
    finally:
        engine.stop(0)
        world.tap.detach()


def test_texts_beside_one_whose_set_goes_are_scored() -> None:
    world = World()
    scorer = Scorer(world.loaded, world.bank, world.tap)
    outcomes: dict[str, ScoreOutcome] = {}
    both, scored = threading.Event(), threading.Event()

    def done(found: Sequence[tuple[str, ScoreOutcome]]) -> None:
        outcomes.update(found)
        if len(outcomes) == 3:
            scored.set()

    class Slow(Recorder):
        """Keeps the thread, so that the two behind it share a pass."""

        def observe(self, block):
            assert both.wait(60)
            return super().observe(block)

    scorer.start()
    try:
        scorer.submit(job("first", prompt(1), Slow()), done)
        while scorer.queue_depth():
            threading.Event().wait(0.01)
        lease = world.lease()
        scorer.submit(job("old", prompt(3), Recorder(), lease=lease, admitted=lease.release), done)
        scorer.submit(job("new", prompt(3), Recorder()), done)
        both.set()
        assert scored.wait(60)
        assert outcomes["new"].coverage.complete
        assert outcomes["old"].coverage.complete
    finally:
        scorer.stop(5)
        world.tap.detach()
    assert world.empty()


def job(name: str, ids: tuple[int, ...], observer: Recorder, **options: object) -> ScoreJob:
    return ScoreJob(name, ids, observer, observer, **options)


def test_texts_that_never_run_let_go() -> None:
    world = World()
    scorer = Scorer(world.loaded, world.bank, world.tap, waiting=1)
    lease = world.lease()

    def nothing(_: object) -> None:
        """Nobody asks."""

    gate = threading.Event()

    class Slow(Recorder):
        def observe(self, block):
            assert gate.wait(60)
            return super().observe(block)

    scorer.start()
    try:
        scorer.submit(job("runs", prompt(1), Slow()), nothing)
        while scorer.queue_depth():
            threading.Event().wait(0.01)
        scorer.submit(job("leaves", prompt(1), Recorder(), lease=lease), nothing)
        with pytest.raises(Overloaded):
            scorer.submit(job("refused", prompt(1), Recorder(), lease=lease), nothing)
        scorer.cancel("leaves")
        scorer.submit(job("waits", prompt(1), Recorder(), lease=lease), nothing)
        scorer.stop(0)
        with pytest.raises(Unavailable):
            scorer.submit(job("late", prompt(1), Recorder(), lease=lease), nothing)
    finally:
        gate.set()
        scorer.stop(5)
        world.tap.detach()
    assert not world.empty()
    lease.release()
    assert world.empty()


def test_a_generation_that_is_refused_holds_nothing() -> None:
    world = World()
    later = LaterTaps(world.loaded.layers, world.tap, LAYER)
    engine = Engine(
        world.loaded, world.bank, world.tap, limits=Limits(running=4, batch_tokens=96), later=later
    )
    engine.start()
    try:
        lease = world.lease()
        weights = np.zeros(WIDTH, np.float32)
        # A probe before the tapped layer cannot see what a clamp does.
        plan = SuppressionPlan("p", (60,), LaterProbe(0, weights, 0.0, 1.0, 8.0))
        call = Call(prompt(2), Recorder())
        with pytest.raises(ModelError, match="after the tapped layer"):
            engine.submit(
                GenerationRequest(
                    "a",
                    call.ids,
                    Sampling(),
                    call.observer,
                    call.observer,
                    (Clamp(90, -1.0),),
                    plans=(plan,),
                    lease=lease,
                ),
                call.emit,
            )
        lease.release()
        assert world.empty()
    finally:
        engine.stop(0)
        world.tap.detach()
