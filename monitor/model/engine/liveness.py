"""Liveness: whether tokens are scored now, as the passes show that run anyway, or a few tokens that nobody asked for.

A request of its own would wait behind a backlog like any other, so a busy queue is judged by its passes.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Protocol

from monitor.errors import MonitorError, Overloaded
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

CLEAN = 3
"""So many passes in a row of which every row was scored show as much as a request of its own."""
_LOOK = 0.05
"""Seconds between two looks at a queue."""
_SOON = 0.5
"""Seconds in which the passes of a busy queue may show it, before a request is submitted."""


class _PassRunner(Protocol):
    def running(self) -> int: ...

    def clean_passes(self) -> int: ...


class _Engine(_PassRunner, Protocol):
    def submit(self, request: GenerationRequest, emit: Emit) -> None: ...

    def cancel(self, request_id: str) -> None: ...


class _Scorer(_PassRunner, Protocol):
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

    def there(self, timeout: float) -> bool:
        """True once the request has ended."""
        return self._there.wait(timeout)

    @property
    def seen(self) -> bool:
        """True where it ended with every token scored."""
        return self._there.is_set() and self._seen


def can_see(engine: _Engine | None, scorer: _Scorer, ids: tuple[int, ...], timeout: float) -> bool:
    """True where tokens are scored, read and generated alike, or are so again after a fault.

    A queue that is busy shows it by its passes since the last fault, one that is idle by a short text of its own, which
    must end within `timeout` seconds. Blocks. An engine that is gone counts as blind: nobody could be served either.
    Where nothing is generated, `engine` is None.
    """
    name = f"probe-{uuid.uuid4().hex}"
    seen = _scores(scorer, name, ids, timeout)
    return seen and (engine is None or _generates(engine, name, ids, timeout))


def _scores(scorer: _Scorer, name: str, ids: tuple[int, ...], timeout: float) -> bool:
    answer, nobody = _Answer(), Nobody()

    def done(outcomes: Sequence[tuple[str, ScoreOutcome]]) -> None:
        for _, outcome in outcomes:
            answer.says(outcome.coverage, outcome.error)

    return _shows(
        scorer, lambda: scorer.submit(ScoreJob(name, ids, nobody, nobody), done), name, answer, timeout
    )


def _generates(engine: _Engine, name: str, ids: tuple[int, ...], timeout: float) -> bool:
    answer, nobody = _Answer(), Nobody()

    def emit(events: Sequence[tuple[str, Event]]) -> None:
        for _, event in events:
            if isinstance(event, Finished):
                answer.says(event.coverage, event.error)

    request = GenerationRequest(name, ids, Sampling(max_new_tokens=2), nobody, nobody)
    return _shows(engine, lambda: engine.submit(request, emit), name, answer, timeout)


def _shows(
    queue: _Engine | _Scorer, submit: Callable[[], None], name: str, answer: _Answer, timeout: float
) -> bool:
    """True where a queue scores what it runs, by its passes where it is busy, or by the request of `submit`."""
    until = time.monotonic() + timeout
    soon = min(until, time.monotonic() + _SOON)
    while not _clean(queue):
        if queue.running() == 0 or time.monotonic() >= soon:
            break
        time.sleep(_LOOK)  # whoever runs anyway may show it, and then needs no other request beside it
    else:
        return True
    try:
        submit()
    except Overloaded:
        pass  # it is busy, so that its passes will show
    except MonitorError:
        return False
    try:
        while not (answer.there(_LOOK) or _clean(queue)) and time.monotonic() < until:
            pass
    finally:
        queue.cancel(name)
    return answer.seen if answer.there(0) else _clean(queue)


def _clean(queue: _PassRunner) -> bool:
    return queue.running() > 0 and queue.clean_passes() >= CLEAN
