"""Liveness: whether the monitor can see, tried end to end with a few tokens that nobody asked for."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Sequence
from typing import Protocol

from monitor.errors import MonitorError
from monitor.model.engine.requests import (
    Done,
    Emit,
    Event,
    Finished,
    GenerationRequest,
    ScoreJob,
    ScoreOutcome,
)
from monitor.records import Action, Blocks, Coverage, Decision, Sampling


class _Engine(Protocol):
    def submit(self, request: GenerationRequest, emit: Emit) -> None: ...

    def cancel(self, request_id: str) -> None: ...


class _Scorer(Protocol):
    def submit(self, job: ScoreJob, done: Done) -> None: ...

    def cancel(self, request_id: str) -> None: ...


class Nobody:
    """One request without rules, and its observer: what was not scored ends it."""

    slot = 0
    first = Decision()

    def observe_batch(self, blocks: Blocks) -> dict[int, Decision]:
        """Minds nothing but what was not scored."""
        return {i: Decision(action=Action.BLOCK, failure=why) for i, why in blocks.unscored().items()}


class _Answer:
    """The coverage of a request that ran in the background."""

    def __init__(self) -> None:
        self._there = threading.Event()
        self._seen = False

    def says(self, coverage: Coverage, error: MonitorError | None) -> None:
        self._seen = coverage.complete and coverage.tokens_run > 0 and error is None
        self._there.set()

    def seen(self, timeout: float) -> bool:
        return self._there.wait(timeout) and self._seen


def can_see(engine: _Engine | None, scorer: _Scorer, ids: tuple[int, ...], timeout: float) -> bool:
    """True where every token of a short text was scored, read and generated alike, within `timeout` seconds each.

    Blocks. A queue that is full or an engine that is gone counts as blind: nobody could be served either. Where
    nothing is generated, `engine` is None.
    """
    name = f"probe-{uuid.uuid4().hex}"
    seen = _scores(scorer, name, ids, timeout)
    return seen and (engine is None or _generates(engine, name, ids, timeout))


def _scores(scorer: _Scorer, name: str, ids: tuple[int, ...], timeout: float) -> bool:
    answer, nobody = _Answer(), Nobody()

    def done(outcomes: Sequence[tuple[str, ScoreOutcome]]) -> None:
        for _, outcome in outcomes:
            answer.says(outcome.coverage, outcome.error)

    try:
        scorer.submit(ScoreJob(name, ids, nobody, nobody), done)
    except MonitorError:
        return False
    seen = answer.seen(timeout)
    scorer.cancel(name)
    return seen


def _generates(engine: _Engine, name: str, ids: tuple[int, ...], timeout: float) -> bool:
    answer, nobody = _Answer(), Nobody()

    def emit(events: Sequence[tuple[str, Event]]) -> None:
        for _, event in events:
            if isinstance(event, Finished):
                answer.says(event.coverage, event.error)

    try:
        engine.submit(GenerationRequest(name, ids, Sampling(max_new_tokens=2), nobody, nobody), emit)
    except MonitorError:
        return False
    seen = answer.seen(timeout)
    engine.cancel(name)
    return seen
