"""The scorer: texts are scored without generating, by forward passes that end after the tapped layer.

No head and no sampling: about half the work of a forward pass. Texts of about one length share a pass. A text that is
longer than a pass runs in chunks, in turn with the passes of shorter ones.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import structlog
import torch
from numpy.typing import NDArray

from monitor.errors import MonitorError, MonitoringFailed, Overloaded, Unavailable
from monitor.model.compute_threads import release
from monitor.model.engine.chunks import Chunks
from monitor.model.engine.readout import Readout, Taken
from monitor.model.engine.requests import KEPT, Done, Lease, ScoreJob, ScoreOutcome, StreamJob, pass_failed
from monitor.model.load.model import LoadedModel
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.tap import Tap, TapBuffers
from monitor.records import Action, Blocks, Coverage, Decision, Failure, Phase, ScoredTokens, joined

FAILED = "the text could not be monitored"
"""What callers are told; the cause is for the operator."""
_IDLE = 0.5
"""Seconds without work after which other threads may compute as if this one did not."""
_CRASHED = Decision(action=Action.BLOCK, failure=Failure.RULE_ERROR)
"""Of texts whose observer crashed: it can no longer say what is closed."""

_log = structlog.get_logger(__name__)


class ScoredPasses:
    """Counts of the passes over texts, and of those in which some text could not be scored."""

    def __init__(self) -> None:
        self._passes = self._unscored = self._clean = 0

    def passes(self) -> int:
        """Passes that ended since the start, well or not. Every chunk of a long text is one."""
        return self._passes

    def unscored_passes(self) -> int:
        """Passes since the start of which some row could not be scored."""
        return self._unscored

    def clean_passes(self) -> int:
        """Passes in a row, up to the last one, of which every row was scored."""
        return self._clean

    def _count(self, unscored: bool) -> None:
        """Count a pass that ended."""
        self._passes += 1
        self._unscored += unscored
        self._clean = 0 if unscored else self._clean + 1

    def _fell(self) -> None:
        """A text could not be run: no pass in a row is clean."""
        self._unscored += 1
        self._clean = 0


class Scorer(ScoredPasses):
    """Runs scoring passes on its own thread. `submit` and `cancel` may be called from any thread."""

    def __init__(
        self,
        loaded: LoadedModel,
        bank: FeatureBank,
        tap: Tap,
        *,
        batch_tokens: int | None = None,
        waiting: int = 1024,
        alone: bool = False,
    ) -> None:
        """`alone`: nothing else in this process computes as a rule, so that it keeps its threads while it waits.

        The first passes of threads that have just begun wait for the operating system to move them to processors of
        their own, ten milliseconds and more.
        """
        super().__init__()
        self._alone = alone
        self._loaded, self._bank, self._tap = loaded, bank, tap
        self.chunks = Chunks(loaded, tap.site, batch_tokens)
        """The passes, for whoever else reads texts at the tapped layer."""
        self._capacity = waiting
        self._waiting: deque[Scoring] = deque()
        self._long: Scoring | None = None
        """The text that runs in chunks."""
        self._long_next = False
        """True where it is its turn."""
        self._wake = threading.Condition()
        self._stopping = self._ended = False
        self._running = 0
        self._thread = threading.Thread(target=self._loop, name="scorer", daemon=True)

    def start(self) -> None:
        """Find out whether texts can be cut, and begin to score."""
        self.chunks.rehearse()
        self._thread.start()

    def stop(self, grace: float) -> None:
        """Refuse new texts, score those that wait for up to `grace` seconds, end the rest."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(grace)
        self._ended = True
        self._end_waiting(Unavailable("the server is stopping"))

    def submit(self, job: ScoreJob, done: Done) -> None:
        """Queue a text; the outcome goes to `done` on the scorer's thread, those of a pass together.

        Raises Unavailable while stopping or after the thread died, Overloaded where the queue is full, TooLong where
        the model can neither run the text in one pass nor in chunks, BadRequest where it cannot run the ids.
        """
        self._loaded.check_ids(job.ids)
        self.chunks.check(len(job.ids))
        with self._wake:
            if self._stopping or not self._thread.is_alive():
                raise Unavailable("the scorer does not run")
            if len(self._waiting) >= self._capacity:
                raise Overloaded(f"{self._capacity} texts wait already; try again", retry_after=0.5)
            text = Scoring(job, done)
            text.heard(job.observed.first, 0)
            if job.lease is not None:
                job.lease.acquire()
            self._waiting.append(text)
            self._wake.notify()

    def cancel(self, request_id: str) -> None:
        """Drop a text. One that runs is dropped before its next chunk, or scored to its end where it has none."""
        with self._wake:
            dropped = [text for text in self._waiting if text.request_id == request_id]
            self._waiting = deque(text for text in self._waiting if text.request_id != request_id)
            if self._long is not None and self._long.request_id == request_id:
                self._long.gone = True
        for text in dropped:
            text.let_go()

    def queue_depth(self) -> int:
        """Texts that wait."""
        return len(self._waiting)

    def running(self) -> int:
        """Texts in the pass that runs now, and the one that runs in chunks."""
        return self._running

    def healthy(self) -> bool:
        """True where the thread runs."""
        return self._thread.is_alive()

    def _loop(self) -> None:
        buffers = TapBuffers(self._bank, self.chunks.rows, stop=True)
        readout = Readout(self._bank, buffers)
        self._tap.use(buffers)
        while (batch := self._next()) is not None:
            self._pass([text for text in batch if self._begins(text)], buffers, readout)
            self._beside(buffers, readout)

    def _waits(self) -> bool:
        """True where `_beside` has something to do; the lock is held."""
        return False

    def _beside(self, buffers: TapBuffers, readout: Readout) -> None:
        """What else runs on this thread, between two passes over texts."""

    def _next(self) -> Sequence[Scoring] | None:
        """The texts of the next pass; waits for the first. None: stop. Empty where only `_beside` has something to do.

        The long text and the others take turns, pass by pass. The next long one begins where it is the oldest.
        """
        with self._wake:
            while True:
                self._drop_long()
                self._running = int(self._long is not None)
                short = [text for text in self._waiting if not self.chunks.cuts(len(text.job.ids))]
                if self._long is None and self._waiting and self.chunks.cuts(len(self._waiting[0].job.ids)):
                    self._long, self._long_next = self._waiting.popleft(), True
                if self._long is not None and (self._long_next or not short):
                    self._long_next, self._running = False, 1
                    return [self._long]
                if short:
                    self._long_next = True
                    return self._batch(short)
                if self._waits():
                    return ()
                if self._stopping:
                    return None
                if not self._wake.wait(_IDLE) and not self._alone:
                    release()

    def _batch(self, waiting: Sequence[Scoring]) -> Sequence[Scoring]:
        """Texts of similar length, oldest first, that fit one pass, out of those that are not cut."""
        longest = len(waiting[0].job.ids)
        batch: list[Scoring] = []
        for text in sorted(waiting, key=lambda text: abs(len(text.job.ids) - longest)):
            width = max(longest, len(text.job.ids))
            if not batch or (len(batch) + 1) * width <= self.chunks.most:
                batch.append(text)
                longest = width
        taken = set(batch)
        self._waiting = deque(text for text in self._waiting if text not in taken)
        self._running = len(batch) + (self._long is not None)
        return batch

    def _drop_long(self) -> None:
        """Forget the long text where it has ended, or where nobody waits for it any more."""
        text = self._long
        if text is not None and (text.over or text.gone or self._ended):
            self._long = None
            if text.gone:
                text.let_go()
            elif not text.over:
                self._deliver([(text, text.unfinished(Unavailable("the server is stopping")))])

    def _begins(self, text: Scoring) -> bool:
        """Tell whoever wants to know that a text is in its first pass; False where that ends it."""
        if text.position:
            return True
        try:
            text.job.admitted()
        except Exception as error:  # noqa: BLE001  (the other texts of the pass have no part in it)
            self._fail(text, error)
            return False
        return True

    def _pass(self, batch: Sequence[Scoring], buffers: TapBuffers, readout: Readout) -> None:
        """Run texts, or the next chunk of one, and show the rules what was read."""
        if not batch:
            return
        try:
            rows, ids = self._run(batch, buffers)
            taken = readout.take(ids.numel())
        except Exception as error:  # noqa: BLE001  (one bad pass must not end the thread; its texts are UNKNOWN)
            self._passes += 1
            if len(batch) == 1:
                self._fail(batch[0], error)
            else:
                # Which of them it was shows when each runs alone.
                for text in batch:
                    self._pass([text], buffers, readout)
            return
        self._judge(rows, taken, ids.numpy().ravel())

    def _run(self, batch: Sequence[Scoring], buffers: TapBuffers) -> tuple[Sequence[TextRows], torch.Tensor]:
        """Run a pass; gives the rows of each text, and the token ids `[texts, tokens]` that ran."""
        text = batch[0]
        cut = self.chunks.cuts(len(text.job.ids))
        if cut and text.past is None:
            text.past = self.chunks.past()
        ends = [self.chunks.end(text.position, len(text.job.ids)) if cut else len(t.job.ids) for t in batch]
        width = max(end - text.position for end, text in zip(ends, batch, strict=True))
        ids = torch.empty(len(batch), width, dtype=torch.int64)
        rows: list[TextRows] = []
        for number, (end, text) in enumerate(zip(ends, batch, strict=True)):
            part = text.job.ids[text.position : end]
            # Padded with a token of its own: what is wrong with a token must not reach texts that do not hold it.
            ids[number] = part[-1]
            ids[number, : len(part)] = torch.tensor(part)
            rows.append(TextRows(text, number * width, text.position, len(part)))
        buffers.begin([part.first for part in rows if part.start == 0])
        buffers.settle(self._bank)
        buffers.poison(ids.numel())
        # Padding stands on the right and attention is causal, so no token sees it.
        self.chunks.run(ids, [len(text.job.ids) for text in batch], text.past if cut else None)
        return rows, ids

    def _judge(self, rows: Sequence[TextRows], taken: Taken, ids: NDArray[np.int64]) -> None:
        """Show the rules what a pass read, and deliver the texts that have ended with it."""
        self._count(observe(rows, taken, ids))
        over: list[tuple[Scoring, ScoreOutcome]] = []
        for part in rows:
            try:
                part.text.ran(part, taken)
                if part.text.finished:
                    over.append((part.text, part.text.outcome()))
            except Exception as error:  # noqa: BLE001  (the other texts of the pass have no part in it)
                self._fail(part.text, error)
        self._deliver(over)

    def _fail(self, text: Scoring, error: Exception) -> None:
        """End a text that could not be run."""
        _log.error("a text could not be scored", request_id=text.request_id, error=type(error).__name__)
        self._fell()
        self._deliver([(text, text.failed(error))])

    def _deliver(self, outcomes: Sequence[tuple[Scoring, ScoreOutcome]]) -> None:
        """Hand over texts that have ended, to each of those who submitted them at once."""
        for text, _ in outcomes:
            text.let_go()
        hand_over(outcomes)

    def _end_waiting(self, error: MonitorError) -> None:
        with self._wake:
            rest, self._waiting = list(self._waiting), deque()
        self._deliver([(text, text.unfinished(error)) for text in rest])


def give_back(lease: Lease | None) -> None:
    """Release what a sequence held of its policy set. Where that fails, it has ended all the same."""
    try:
        if lease is not None:
            lease.release()
    except Exception as error:  # noqa: BLE001  (whoever has ended ends neither the scorer nor others)
        _log.error(KEPT, error=type(error).__name__)


def hand_over(outcomes: Sequence[tuple[Scoring, ScoreOutcome]]) -> None:
    """Give the outcomes of texts that have ended to those who submitted them, to each of them at once."""
    by_taker: dict[Done, list[tuple[str, ScoreOutcome]]] = {}
    for text, outcome in outcomes:
        by_taker.setdefault(text.done, []).append((text.request_id, outcome))
    for done, mine in by_taker.items():
        try:
            done(mine)
        except Exception as error:  # noqa: BLE001  (whoever takes outcomes ends neither the scorer nor others)
            _log.error("outcomes of a pass were not taken", error=type(error).__name__)


@dataclass(slots=True, eq=False)
class Scoring:
    """A text on its way: how far it ran, and what the rules said of it."""

    job: ScoreJob
    done: Done
    position: int = 0
    """Tokens that ran."""
    unscored: int = 0
    """Of those, tokens that could not be scored."""
    before: int = 0
    """Of the unscored tokens, those of earlier passes."""
    sinks: int = 0
    """Of those that were scored, attention sinks."""
    failure: Failure | None = None
    """The first cause for which something could not be scored."""
    closed: bool = False
    """True where the rules withhold it for that."""
    past: Any = None
    """Keys and values of the tokens that ran, where it runs in chunks."""
    gone: bool = False
    """True where nobody waits for it any more."""
    over: bool = False
    """True once its policy set's columns are not read for it any more, because it has ended."""
    tokens: list[ScoredTokens] = field(default_factory=list)

    @property
    def request_id(self) -> str:
        """The request's."""
        return self.job.request_id

    @property
    def finished(self) -> bool:
        """True where all of it ran."""
        return self.position == len(self.job.ids)

    def heard(self, decision: Decision, tokens: int) -> None:
        """Note what the rules said of some tokens."""
        if decision.failure is None:
            return
        self.unscored += tokens
        self.failure = self.failure or decision.failure
        self.closed |= decision.action is Action.BLOCK

    def ran(self, part: TextRows, taken: Taken) -> None:
        """Note that its next tokens ran, and their readings where the caller asked for them."""
        job, self.position = self.job, self.position + part.count
        if self.unscored == self.before:
            self.sinks += taken.sinks_in(slice(part.first, part.first + part.count))
        self.before = self.unscored
        if job.include_tokens and not self.closed:
            ids = job.ids[part.start : self.position]
            self.tokens.append(taken.tokens(Phase.PROMPT, part.start, ids, part.first, job.lease))

    def outcome(self) -> ScoreOutcome:
        """What is said of all of it."""
        coverage = self._coverage(self.position)
        if self.failure is not None and self.closed:
            return ScoreOutcome(coverage, error=MonitoringFailed(FAILED, self.failure))
        return ScoreOutcome(coverage, joined(self.tokens) if self.tokens else None)

    def failed(self, error: Exception) -> ScoreOutcome:
        """What is said where it could not be run to its end. If its rules cannot take that in, it is withheld."""
        self.heard(pass_failed(self.job.observer, self.job.observed, self.position), 0)
        known = error if isinstance(error, MonitorError) else MonitoringFailed(FAILED, Failure.PASS_FAILED)
        coverage = self._coverage(len(self.job.ids))
        return ScoreOutcome(coverage, error=known if self.closed else None)

    def _coverage(self, run: int) -> Coverage:
        scored = self.position - self.unscored
        return Coverage(run, scored, self.job.tokens_truncated, tokens_sinks=self.sinks)

    def unfinished(self, error: MonitorError) -> ScoreOutcome:
        """What is said where the scorer stops before its end."""
        return ScoreOutcome(Coverage(0, 0, self.job.tokens_truncated), error=error)

    def let_go(self) -> None:
        """Its policy set's columns are not read for it any more, and its keys and values are free."""
        if not self.over:
            self.over, self.past = True, None
            give_back(self.job.lease)


@dataclass(frozen=True, slots=True, eq=False)
class TextRows:
    """Where tokens of a text stand in a pass."""

    text: Scoring
    first: int
    """Row of the first of them."""
    start: int
    """Its position in the text."""
    count: int

    def part(self, *, response: bool) -> tuple[int, int]:
        """Of what a caller wrote, or of the rest: the position of its first token here, and how many there are."""
        job, end = self.text.job, self.start + self.count
        boundary = len(job.ids) if job.prompt is None else min(job.prompt, len(job.ids))
        first, stop = (max(self.start, boundary), end) if response else (self.start, min(end, boundary))
        return first, max(0, stop - first)


class ObservedSequence(Protocol):
    """A sequence as what it is judged by."""

    @property
    def job(self) -> ScoreJob | StreamJob:
        """What was asked for."""

    def heard(self, decision: Decision, tokens: int) -> None:
        """Note what the rules said of some tokens."""


class PassRows(Protocol):
    """Where tokens of a sequence stand in a pass."""

    @property
    def text(self) -> ObservedSequence:
        """The sequence."""

    @property
    def first(self) -> int:
        """Row of the first of them."""

    @property
    def start(self) -> int:
        """Its position in the sequence."""

    def part(self, *, response: bool) -> tuple[int, int]:
        """Of what a caller wrote, or of the rest: the position of its first token here, and how many there are."""


def observe(rows: Sequence[PassRows], taken: Taken, ids: NDArray[np.int64]) -> bool:
    """Show the rules what a pass read: prompts first, then responses. True where something could not be scored."""
    failed = False
    for response in (False, True):
        groups: dict[int, list[PassRows]] = {}
        for part in rows:
            if part.part(response=response)[1]:
                groups.setdefault(id(part.text.job.observer), []).append(part)
        for mine in groups.values():
            for i, decision in _observed(mine, taken, ids, response=response).items():
                mine[i].text.heard(decision, mine[i].part(response=response)[1])
                failed |= decision.failure is not None
    return failed


def _observed(
    rows: Sequence[PassRows], taken: Taken, ids: NDArray[np.int64], *, response: bool
) -> Mapping[int, Decision]:
    """One call of the observer that some texts share. One that crashes can no longer say what is closed."""
    try:
        starts, counts = np.asarray([part.part(response=response) for part in rows], np.int64).T
        first = np.asarray([part.first - part.start for part in rows], np.int64)
        blocks = Blocks(
            slots=np.asarray([part.text.job.observed.slot for part in rows], np.intp),
            responses=np.full(len(rows), response),
            starts=starts,
            firsts=first + starts,
            counts=counts,
            token_ids=ids,
            readings=taken.watched(rows[0].text.job.lease),
            sinks=taken.sinks,
        )
        return rows[0].text.job.observer.observe_batch(blocks)
    except Exception:  # noqa: BLE001  (nothing unscored may look clean, and nobody may wait for ever)
        return dict.fromkeys(range(len(rows)), _CRASHED)
