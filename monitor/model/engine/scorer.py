"""Score texts without generating: forward passes that end after the tapped layer.

Knows how to batch token sequences of mixed lengths. No head, no sampling, no cache: about half the work of a
forward pass. Does not know policies (an `Observer` stands for them), RPC or metrics.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

import torch

from monitor.errors import MonitorError, MonitoringFailed, Overloaded, Unavailable
from monitor.model.engine.detokenizer import Vocabulary
from monitor.model.engine.readout import Readout, Taken
from monitor.model.engine.requests import Done, ScoreJob, ScoreOutcome
from monitor.model.engine.rows import why_unscored
from monitor.model.load.model import LoadedModel
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.tap import LayerReached, Tap, TapBuffers
from monitor.records import Action, Coverage, Decision, Phase, Readings, ScoredToken, TokenBlock

FAILED = "the text could not be monitored"
"""What callers are told; the cause is for the operator."""
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
        self._vocabulary = Vocabulary(loaded.tokenizer)
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
        """Queue a text; the outcome goes to `done` on the scorer's thread.

        Raises Unavailable while stopping or after the thread died, Overloaded where the queue is full.
        """
        with self._wake:
            if self._stopping or not self._thread.is_alive():
                raise Unavailable("the scorer does not run")
            if len(self._waiting) >= self._capacity:
                raise Overloaded(f"{self._capacity} texts wait already; try again", retry_after=0.5)
            if job.lease is not None:
                job.lease.keep()
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
        with self._loaded.passes, suppress(LayerReached):
            self._loaded.model(input_ids=ids.to(self._loaded.device), use_cache=False)
        taken = self._readout.take(ids.numel())
        self._unscored += not taken.clean
        outcomes = [self._outcome(job, taken, row * width) for row, (job, _) in enumerate(batch)]
        for (_, done), outcome in zip(batch, outcomes, strict=True):
            done(outcome)

    def _outcome(self, job: ScoreJob, taken: Taken, first: int) -> ScoreOutcome:
        """What a pass says of one text; where that cannot be said, of this text alone."""
        try:
            return self._judged(job, taken, first)
        except Exception as error:  # noqa: BLE001  (the others in the pass were scored)
            return _failed(job, error)

    def _judged(self, job: ScoreJob, taken: Taken, first: int) -> ScoreOutcome:
        count = len(job.ids)
        readings = taken.shown(slice(first, first + count), job.lease)
        decision, cause = _observe(job, readings)
        coverage = Coverage(count, 0 if cause else count, job.tokens_truncated)
        if cause and decision.action is Action.BLOCK:
            return ScoreOutcome(coverage, (), decision.detections, cause, MonitoringFailed(FAILED, cause))
        tokens = self._tokens(job, taken, first) if job.include_tokens else ()
        return ScoreOutcome(coverage, tokens, decision.detections, cause)

    def _tokens(self, job: ScoreJob, taken: Taken, first: int) -> tuple[ScoredToken, ...]:
        slots = taken.slots(job.lease)
        return tuple(
            ScoredToken(
                at, token_id, self._vocabulary.text(token_id), Phase.PROMPT, taken.active(first + at, slots)
            )
            for at, token_id in enumerate(job.ids)
        )

    def _fail(self, batch: Sequence[tuple[ScoreJob, Done]], error: Exception) -> None:
        self._unscored += 1
        for job, done in batch:
            done(_failed(job, error))

    def _end_waiting(self, error: MonitorError) -> None:
        with self._wake:
            rest, self._waiting = list(self._waiting), deque()
        for job, done in rest:
            _let_go(job)
            done(ScoreOutcome(Coverage(0, 0, job.tokens_truncated), error=error))


def _failed(job: ScoreJob, error: Exception) -> ScoreOutcome:
    """A text that was not scored; one whose rules cannot even take that in is withheld."""
    known = error if isinstance(error, MonitorError) else MonitoringFailed(FAILED, "pass_failed")
    try:
        decision = job.observer.failed("pass_failed")
    except Exception:  # noqa: BLE001  (nobody may wait for ever, and nothing unscored may look clean)
        decision = Decision(action=Action.BLOCK)
    coverage = Coverage(len(job.ids), 0, job.tokens_truncated)
    closed = decision.action is Action.BLOCK
    return ScoreOutcome(coverage, (), decision.detections, "pass_failed", known if closed else None)


def _let_go(job: ScoreJob) -> None:
    """Its policy set's columns are not read for it any more."""
    if job.lease is not None:
        job.lease.release()


def _observe(job: ScoreJob, readings: Readings) -> tuple[Decision, str]:
    """The rules' decision on a whole text, and why it counts as unscored (empty where it was scored)."""
    if cause := why_unscored(readings):
        return job.observer.failed(cause), cause
    try:
        return job.observer.observe(TokenBlock(Phase.PROMPT, 0, job.ids, readings)), ""
    except Exception:  # noqa: BLE001  (a rule that crashes must not look clean)
        return job.observer.failed("rule_error"), "rule_error"
