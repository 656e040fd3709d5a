"""The scorer: texts are scored without generating, by forward passes that end after the tapped layer.

No head, no sampling, no cache: about half the work of a forward pass. Texts of about one length share a pass.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from monitor.errors import MonitorError, MonitoringFailed, Overloaded, Unavailable
from monitor.model.engine.readout import Readout, Taken
from monitor.model.engine.requests import Done, ScoreJob, ScoreOutcome
from monitor.model.load.model import LoadedModel
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.tap import LayerReached, Tap, TapBuffers
from monitor.records import Action, Blocks, Coverage, Decision, Failure, Phase

FAILED = "the text could not be monitored"
"""What callers are told; the cause is for the operator."""
_CRASHED = Decision(action=Action.BLOCK, failure=Failure.RULE_ERROR)
"""Of texts whose observer crashed: it can no longer say what is closed."""
_PASS = {True: 2048, False: 4096}
"""Most tokens of a pass, on the CPU and elsewhere. Generations wait for its end; `monitor.bench.load` scores a third
less with 512."""


class Scorer:
    """Runs scoring passes on its own thread. `submit` and `cancel` may be called from any thread."""

    def __init__(
        self,
        loaded: LoadedModel,
        bank: FeatureBank,
        tap: Tap,
        *,
        batch_tokens: int | None = None,
        waiting: int = 1024,
    ) -> None:
        self._loaded, self._bank, self._tap = loaded, bank, tap
        self._rows = max(batch_tokens or _PASS[loaded.device.type == "cpu"], loaded.context)
        self._capacity = waiting
        self._waiting: deque[tuple[ScoreJob, Done]] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._running = 0
        self._passes = 0
        self._unscored = 0
        self._thread = threading.Thread(target=self._loop, name="scorer", daemon=True)

    def start(self) -> None:
        """Begin to score."""
        self._thread.start()

    def stop(self, grace: float) -> None:
        """Refuse new texts, score those that wait for up to `grace` seconds, end the rest."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(grace)
        self._end_waiting(Unavailable("the server is stopping"))

    def submit(self, job: ScoreJob, done: Done) -> None:
        """Queue a text; the outcome goes to `done` on the scorer's thread, those of a pass together.

        Raises Unavailable while stopping or after the thread died, Overloaded where the queue is full, BadRequest where
        the model cannot run the ids.
        """
        self._loaded.check_ids(job.ids)
        with self._wake:
            if self._stopping or not self._thread.is_alive():
                raise Unavailable("the scorer does not run")
            if len(self._waiting) >= self._capacity:
                raise Overloaded(f"{self._capacity} texts wait already; try again", retry_after=0.5)
            if job.lease is not None:
                job.lease.acquire()
            self._waiting.append((job, done))
            self._wake.notify()

    def cancel(self, request_id: str) -> None:
        """Drop a text that waits; one that runs is scored to its end (a pass takes milliseconds)."""
        with self._wake:
            dropped = [job for job, _ in self._waiting if job.request_id == request_id]
            self._waiting = deque(item for item in self._waiting if item[0].request_id != request_id)
        for job in dropped:
            _let_go(job)

    def queue_depth(self) -> int:
        """Texts that wait."""
        return len(self._waiting)

    def running(self) -> int:
        """Texts in the pass that runs now."""
        return self._running

    def passes(self) -> int:
        """Passes that ended since the start, well or not."""
        return self._passes

    def unscored_passes(self) -> int:
        """Passes since the start of which some row could not be scored."""
        return self._unscored

    def healthy(self) -> bool:
        """True where the thread runs."""
        return self._thread.is_alive()

    def _loop(self) -> None:
        buffers = TapBuffers(self._bank, self._rows, stop=True)
        self._readout = Readout(self._bank, buffers)
        self._tap.use(buffers)
        while (batch := self._next_batch()) is not None:
            self._running = len(batch)
            try:
                self._score(batch, buffers)
            except Exception as error:  # noqa: BLE001  (one bad pass must not end the thread; its texts are UNKNOWN)
                self._fail(batch, error)
            for job, _ in batch:
                _let_go(job)
            self._passes += 1
            self._running = 0

    def _next_batch(self) -> list[tuple[ScoreJob, Done]] | None:
        """Texts of similar length, oldest first, that fit one pass; waits for the first. None: stop."""
        with self._wake:
            while not self._waiting:
                if self._stopping:
                    return None
                self._wake.wait(0.5)
            longest = len(self._waiting[0][0].ids)
            batch: list[tuple[ScoreJob, Done]] = []
            for item in sorted(self._waiting, key=lambda item: abs(len(item[0].ids) - longest)):
                width = max(longest, len(item[0].ids))
                if (len(batch) + 1) * width <= self._rows:
                    batch.append(item)
                    longest = width
            taken = {id(item) for item in batch}
            self._waiting = deque(item for item in self._waiting if id(item) not in taken)
            return batch

    @torch.no_grad()
    def _score(self, batch: Sequence[tuple[ScoreJob, Done]], buffers: TapBuffers) -> None:
        width = max(len(job.ids) for job, _ in batch)
        ids = torch.zeros(len(batch), width, dtype=torch.int64)
        for row, (job, _) in enumerate(batch):
            job.admitted()
            ids[row, : len(job.ids)] = torch.tensor(job.ids)
        buffers.settle(self._bank)
        buffers.poison(ids.numel())
        # Padding stands on the right and attention is causal, so no token sees it.
        with self._loaded.reading([len(job.ids) for job, _ in batch]), suppress(LayerReached):
            self._loaded.model(input_ids=ids.to(self._loaded.device), use_cache=False)
        taken = self._readout.take(ids.numel())
        places = [_Place(job, row * width) for row, (job, _) in enumerate(batch)]
        decisions = _observe(places, taken, ids.numpy().ravel())
        self._unscored += any(decision.failure is not None for decision in decisions)
        _deliver(
            (done, job.request_id, _outcome(place, decision, taken))
            for (job, done), place, decision in zip(batch, places, decisions, strict=True)
        )

    def _fail(self, batch: Sequence[tuple[ScoreJob, Done]], error: Exception) -> None:
        self._unscored += 1
        _deliver((done, job.request_id, _failed(job, error)) for job, done in batch)

    def _end_waiting(self, error: MonitorError) -> None:
        with self._wake:
            rest, self._waiting = list(self._waiting), deque()
        for job, _ in rest:
            _let_go(job)
        _deliver(
            (done, job.request_id, ScoreOutcome(Coverage(0, 0, job.tokens_truncated), error=error))
            for job, done in rest
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """Where a text stands in a pass."""

    job: ScoreJob
    first: int
    """Row of its first token."""

    def part(self, *, response: bool) -> tuple[int, int]:
        """Where the part that a caller wrote, or the other, begins in the text, and how many tokens it has."""
        end = len(self.job.ids)
        boundary = end if self.job.prompt is None else min(self.job.prompt, end)
        return (boundary, end - boundary) if response else (0, boundary)


def _observe(places: Sequence[_Place], taken: Taken, ids: NDArray[np.int64]) -> list[Decision]:
    """What the rules say of each text in the end: its prompt first, then its response, where it has one."""
    said = [place.job.observed.first for place in places]
    for response in (False, True):
        groups: dict[int, list[int]] = {}
        for number, place in enumerate(places):
            if place.part(response=response)[1]:
                groups.setdefault(id(place.job.observer), []).append(number)
        for numbers in groups.values():
            mine = [places[number] for number in numbers]
            for i, decision in _observed(mine, taken, ids, response=response).items():
                before = said[numbers[i]].failure
                said[numbers[i]] = decision if before is None else replace(decision, failure=before)
    return said


def _observed(
    places: Sequence[_Place], taken: Taken, ids: NDArray[np.int64], *, response: bool
) -> Mapping[int, Decision]:
    """One call of the observer that some texts share. One that crashes can no longer say what is closed."""
    job = places[0].job
    starts, counts = np.asarray([place.part(response=response) for place in places], np.int64).T
    blocks = Blocks(
        slots=np.asarray([place.job.observed.slot for place in places], np.intp),
        responses=np.full(len(places), response),
        starts=starts,
        firsts=np.asarray([place.first for place in places], np.intp) + starts,
        counts=counts,
        token_ids=ids,
        readings=taken.watched(job.lease),
    )
    try:
        return job.observer.observe_batch(blocks)
    except Exception:  # noqa: BLE001  (nothing unscored may look clean, and nobody may wait for ever)
        return dict.fromkeys(range(len(places)), _CRASHED)


def _outcome(place: _Place, decision: Decision, taken: Taken) -> ScoreOutcome:
    """What a pass says of one text."""
    job, cause = place.job, decision.failure
    count = len(job.ids)
    coverage = Coverage(count, count if cause is None else 0, job.tokens_truncated)
    if cause is not None and decision.action is Action.BLOCK:
        return ScoreOutcome(coverage, error=MonitoringFailed(FAILED, cause))
    if not job.include_tokens:
        return ScoreOutcome(coverage)
    return ScoreOutcome(coverage, taken.tokens(Phase.PROMPT, 0, job.ids, place.first, job.lease))


def _failed(job: ScoreJob, error: Exception) -> ScoreOutcome:
    """A text whose pass failed; one whose rules cannot even take that in is withheld."""
    nothing = np.zeros(1, np.int64)
    blocks = Blocks(
        slots=np.asarray([job.observed.slot], np.intp),
        responses=np.zeros(1, bool),
        starts=nothing,
        firsts=nothing,
        counts=nothing,
        token_ids=nothing[:0],
        readings=np.zeros((0, 0), np.float32),
        faults={0: Failure.PASS_FAILED},
    )
    try:
        decision = job.observer.observe_batch(blocks)[0]
    except Exception:  # noqa: BLE001  (nobody may wait for ever, and nothing unscored may look clean)
        decision = _CRASHED
    known = error if isinstance(error, MonitorError) else MonitoringFailed(FAILED, Failure.PASS_FAILED)
    closed = decision.action is Action.BLOCK
    return ScoreOutcome(Coverage(len(job.ids), 0, job.tokens_truncated), error=known if closed else None)


def _deliver(outcomes: Iterable[tuple[Done, str, ScoreOutcome]]) -> None:
    """Hand over what a pass has, to each of those who submitted its texts at once."""
    by_taker: dict[Done, list[tuple[str, ScoreOutcome]]] = {}
    for done, request_id, outcome in outcomes:
        by_taker.setdefault(done, []).append((request_id, outcome))
    for done, mine in by_taker.items():
        done(mine)


def _let_go(job: ScoreJob) -> None:
    """Its policy set's columns are not read for it any more."""
    if job.lease is not None:
        job.lease.release()
