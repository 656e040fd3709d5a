"""Whether the monitor can see: a few tokens scored and a few generated, end to end, for nobody.

Knows the engine's and the scorer's front doors. Does not know what made anybody ask, nor what is done about the answer.
"""

from __future__ import annotations

import threading
import uuid
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
from monitor.records import Action, Coverage, Decision, Sampling, TokenBlock


class _Engine(Protocol):
    def submit(self, request: GenerationRequest, emit: Emit) -> None: ...

    def cancel(self, request_id: str) -> None: ...


class _Scorer(Protocol):
    def submit(self, job: ScoreJob, done: Done) -> None: ...

    def cancel(self, request_id: str) -> None: ...


class Nobody:
    """An observer without rules that refuses what was not scored."""

    def begin(self) -> Decision:
        """Clamps nothing."""
        return Decision()

    def observe(self, block: TokenBlock) -> Decision:
        """Minds nothing."""
        return Decision()

    def failed(self, cause: str) -> Decision:
        """Ends the request."""
        return Decision(action=Action.BLOCK)


class _Answer:
    """The coverage of a request that ran in the background."""

    def __init__(self) -> None:
        self._there = threading.Event()
        self._seen = False

    def says(self, coverage: Coverage, fault: str, error: MonitorError | None) -> None:
        self._seen = coverage.complete and coverage.tokens_run > 0 and not fault and error is None
        self._there.set()

    def seen(self, timeout: float) -> bool:
        return self._there.wait(timeout) and self._seen


def can_see(engine: _Engine, scorer: _Scorer, ids: tuple[int, ...], timeout: float) -> bool:
    """True where every token of a short text was scored, read and generated alike, within `timeout` seconds each.

    Blocks. A queue that is full or an engine that is gone counts as
    blind: nobody could be served either.
    """
    name = f"probe-{uuid.uuid4().hex}"
    seen = _scores(scorer, name, ids, timeout)
    return seen and _generates(engine, name, ids, timeout)


def _scores(scorer: _Scorer, name: str, ids: tuple[int, ...], timeout: float) -> bool:
    answer = _Answer()

    def done(outcome: ScoreOutcome) -> None:
        answer.says(outcome.coverage, outcome.failure, outcome.error)

    try:
        scorer.submit(ScoreJob(name, ids, Nobody()), done)
    except MonitorError:
        return False
    seen = answer.seen(timeout)
    scorer.cancel(name)
    return seen


def _generates(engine: _Engine, name: str, ids: tuple[int, ...], timeout: float) -> bool:
    answer = _Answer()

    def emit(event: Event) -> None:
        if isinstance(event, Finished):
            answer.says(event.coverage, event.failure, event.error)

    try:
        engine.submit(GenerationRequest(name, ids, Sampling(max_new_tokens=2), Nobody()), emit)
    except MonitorError:
        return False
    seen = answer.seen(timeout)
    engine.cancel(name)
    return seen
