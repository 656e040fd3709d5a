"""The engine: watched, clamped generation of many requests at once.

The way of a token, module by module:

1. `requests`: a `GenerationRequest` comes to `Engine.submit`, which keeps a `sequence.Sequence` for it.
2. `paged` (or `serial`, for models that cannot be batched) decides which tokens run in the next pass, and tells the
   engine by `Span`s of rows. `Engine.before` lays out the clamps of every sequence (`tap/clamps`) and the settings of
   the `sampler`.
3. `tap/tap` reads the watched features at its layer, and clamps; the `sampler` chooses the next tokens. A pass of
   several requests that computed what is no number runs once more, `attention` of each by itself (`Engine.again`).
4. `readout` copies what was read to the host, once for the pass.
5. `Engine.after` shows the tokens that are new to the rules, in one `observe_batch` for all sequences of a policy set
   (`records.Observer`; `policy/rules/observer` implements it, `telemetry` wraps it). A decision comes back where
   something is new.
6. The sequence moves its cursor, begins clamps, ends, or turns the tokens into text (`detokenizer`), and takes the
   token that was drawn, which runs in the next pass and is released only then.
7. The sequence's `Outbox` delivers the events of the pass, once for all requests. From there `rpc/mailbox` takes them
   to the event loop, `rpc/servicer` to the caller, and `rpc/decisions` to the decision log.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Items
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
import structlog
from numpy.typing import NDArray
from torch import Tensor

from monitor.errors import (
    ConfigurationError,
    MonitorError,
    MonitoringFailed,
    Overloaded,
    Unavailable,
)
from monitor.model.compute_threads import release
from monitor.model.engine.chunks import longest_prompt, too_long
from monitor.model.engine.detokenizer import Vocabulary
from monitor.model.engine.paged import Batcher, Batching, Limits, Steps
from monitor.model.engine.readout import PassCopy, Readout, Taken
from monitor.model.engine.requests import KEPT, Emit, GenerationRequest, pass_failed
from monitor.model.engine.sampler import ChoiceCopy, Sampler
from monitor.model.engine.sequence import FAILED, Outbox, Sequence, ran_others
from monitor.model.engine.serial import NoBatcher, SeparateBatcher, why_not_batched
from monitor.model.load.model import LoadedModel
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.clamps import ClampRow, clamp_row, write_rows
from monitor.model.tap.late_probes import COLUMNS, LaterTaps
from monitor.model.tap.span import Span
from monitor.model.tap.suppression_check import Watched
from monitor.model.tap.tap import Tap, TapBuffers
from monitor.records import Action, Blocks, Decision, Failure, FinishReason, LaterProbe, Observer

DEAD = "the engine does not run; the server must be restarted"
BROKEN = "the generation ended with an internal error"

_log = structlog.get_logger(__name__)

MakeBatching = Callable[[LoadedModel, Limits, Steps], Batching]


@dataclass(frozen=True, eq=False)
class _Work:
    """What is allocated once the batcher knows how long a pass can be."""

    buffers: TapBuffers
    readout: Readout
    sampler: Sampler


@dataclass(eq=False)
class _Pass:
    """A pass that was laid out."""

    rows: int
    sequences: list[Sequence | None]
    """Whose its spans are; None where the request has ended, or where its rows were taken back."""
    drawing: list[int] = field(default_factory=list)
    """Numbers of the spans that draw a token."""
    apart: bool = False
    """Attention was computed for each request by itself."""
    again: bool = False
    """It ran a second time."""
    copy: PassCopy | None = None
    """What it wrote, where it was launched; else that stands in the buffers until it is over."""
    choice: ChoiceCopy | None = None
    """As `copy`, of the sampler."""
    taken: tuple[int, Taken] | None = None
    """What of it is on the host already, and of how many rows."""


class Engine:
    """Runs generations on its own thread. `submit` and `cancel` may be called from any thread."""

    def __init__(
        self,
        loaded: LoadedModel,
        bank: FeatureBank,
        tap: Tap,
        *,
        limits: Limits | None = None,
        waiting: int = 256,
        later: LaterTaps | None = None,
        batcher: MakeBatching | None = None,
        finds_ends: bool = True,
    ) -> None:
        """`finds_ends`: tokens that end a text end its request; else whoever runs passes ends it (`finish`)."""
        self._loaded, self._bank, self._tap, self._later = loaded, bank, tap, later
        self._limits = limits or Limits()
        self._capacity = self._limits.running + waiting
        self._sequences: dict[str, Sequence] = {}
        """By request id, from submission to the last event."""
        self._outboxes: dict[Emit, Outbox] = {}
        self._lock = threading.Lock()
        self._cancelled: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._draining = False
        self._passes = 0
        self._unscored = self._clean = 0
        self._laid = _Pass(0, [])
        """The pass that was laid out last."""
        self._in_flight: deque[_Pass] = deque()
        """Passes that were launched and are not over, in order."""
        self._landed: _Pass | None = None
        """The launched pass that `after` is about to be told of."""
        self._returned: list[str] = []
        """Requests whose rows were taken back, for `taken_back`."""
        self._work: _Work | None = None
        self._longest = longest_prompt(loaded)
        self._rows = 0
        self._end_ids = _end_ids(loaded) if finds_ends else frozenset()
        self._vocabulary = Vocabulary(loaded.tokenizer)
        self._why = why_not_batched(loaded) if self._limits.running and batcher is None else ""
        make: MakeBatching = batcher or self._kind()
        self._batcher = make(loaded, self._limits, self)

    def start(self) -> None:
        """Allocate buffers and cache and begin to run."""
        self._batcher.start()
        self._tap.use(None)
        if self._later is not None and self.captured:
            self._later.freeze()
        release()

    def stop(self, grace: float) -> None:
        """Refuse new requests, let those that run finish for `grace` seconds, end the rest, stop the thread."""
        self._draining = True
        deadline = time.monotonic() + grace
        while self._sequences and self.healthy() and time.monotonic() < deadline:
            time.sleep(0.02)
        self._batcher.stop(timeout=10.0)
        self._end_all(Unavailable("the server is stopping"))

    def submit(self, request: GenerationRequest, emit: Emit) -> None:
        """Queue a request; its events go to `emit` on the engine thread, those of a pass together.

        Raises Unavailable while stopping or after the engine died, Overloaded where the queue is full, BadRequest where
        the model cannot run the ids of its prompt, TooLong where it would have to run too many in one pass, and
        ConfigurationError where nothing is generated. Whatever it raises, nothing is held for the request.
        """
        if not self.generates:
            raise ConfigurationError("this server only scores texts: its setting max_running is 0")
        if self._draining:
            raise Unavailable("the server is stopping")
        if not self.healthy():
            raise Unavailable(DEAD)
        self._loaded.check_ids(request.prompt_ids)
        if len(request.prompt_ids) > self._longest:
            raise too_long(self._loaded, len(request.prompt_ids), self._longest)
        limit = min(request.sampling.max_new_tokens, self._loaded.context - len(request.prompt_ids))
        with ExitStack() as undo:
            held = self._hold(request)
            undo.callback(held.close)
            sequence = self._admit(request, emit, limit, held)
            undo.callback(self._forget, sequence)
            self._batcher.add(request.request_id, request.prompt_ids, limit)
            undo.pop_all()
        if not self._batcher.alive():
            self._end_all(Unavailable(DEAD))

    def run_separately(self, why: str) -> None:
        """Take another batcher, which runs one request per pass, because of `why`. Requests that run end."""
        self._batcher.stop(timeout=10.0)
        self._end_all(Unavailable(DEAD))
        self._why, self._work = why, None
        self._batcher = SeparateBatcher(self._loaded, self._limits, self)

    @property
    def rows(self) -> int:
        """Most tokens of one pass; 0 before `start`."""
        return self._rows

    @property
    def generates(self) -> bool:
        """False where requests are refused, because texts are only scored."""
        return self._limits.running > 0

    @property
    def why_separate(self) -> str:
        """Why each pass runs one request; empty where continuous batching runs many together."""
        return self._why

    @property
    def captured(self) -> bool:
        """True where passes replay CUDA graphs that were captured at the start."""
        return self._batcher.static and self._work is not None

    def cancel(self, request_id: str) -> None:
        """End a request before the next pass and free its cache; does nothing where it has ended."""
        self._cancelled.put(request_id)

    def queue_depth(self) -> int:
        """Requests that were submitted and are in no pass yet."""
        return max(0, len(self._sequences) - self._batcher.running())

    def running(self) -> int:
        """Requests in the last pass, or that take turns where a pass runs one."""
        return self._batcher.running() if self._sequences else 0

    def cache_used(self) -> float:
        """Share of the key-value cache that requests hold, 0 to 1. Any thread."""
        # Transformers frees what an ended request held when the next pass begins.
        return self._batcher.cache_used() if self._sequences else 0.0

    def passes(self) -> int:
        """Forward passes since the start."""
        return self._passes

    def unscored_passes(self) -> int:
        """Passes since the start of which some row could not be scored at first, or no token be drawn."""
        return self._unscored

    def clean_passes(self) -> int:
        """Passes in a row, up to the last one, of which every row was scored at once."""
        return self._clean

    def healthy(self) -> bool:
        """True where the engine thread runs."""
        return self._batcher.alive()

    def scored(self, request_id: str) -> int:
        """Tokens of a request, from its first, that the rules were shown; 0 for one that is unknown."""
        sequence = self._sequences.get(request_id)
        return 0 if sequence is None else sequence.scored

    def plain(self, request_id: str) -> bool:
        """True where what is read of a request's tokens is what would be read of them for any other request.

        That is so where nothing is clamped for it; who asks for readings at every token is told of clamps too.
        """
        sequence = self._sequences.get(request_id)
        return sequence is not None and not (sequence.clamps or sequence.request.include_tokens)

    def taken(self, rows: int) -> Taken:
        """What the pass that just ended wrote for its first rows, on the host; copied there once. Engine thread."""
        now = self._over
        if now.taken is None or now.taken[0] != rows:
            copy = now.copy or self._working().readout.copy(rows)
            now.taken = rows, copy.taken()
        return now.taken[1]

    def launched(self) -> None:
        """The pass that was laid out is on its way, and another may be laid out before it is over. Engine thread."""
        work, now = self._working(), self._laid
        now.copy = work.readout.copy(now.rows)
        now.choice = work.sampler.choice(len(now.drawing))
        for number in now.drawing:
            if (sequence := now.sequences[number]) is not None:
                sequence.draw.awaited()
        self._in_flight.append(now)

    def landed(self) -> None:
        """The first of the passes that are on their way is over: `taken` and `after` are about it. Engine thread."""
        self._landed = self._in_flight.popleft()

    def taken_back(self) -> list[str]:
        """Requests whose clamps changed while a further pass ran without the change, since the last time.

        What that pass draws and reads of them is ignored: their tokens from `scored` on must run again. Engine thread.
        """
        found, self._returned = self._returned, []
        return found

    def replay(self, spans: Items[Span], taken: Taken, ids: Items[int]) -> None:
        """Show the rules what earlier passes read of tokens that will not run. Engine thread.

        `taken` has a row for each of the tokens `ids`, and `spans` say whose they are, as in a pass.
        """
        sequences = [self._sequences.get(span.request_id) for span in spans]
        for number, sequence in enumerate(sequences):
            if sequence is None:
                continue
            try:
                self._begin(sequence)
            except Exception as error:  # noqa: BLE001  (one request must not end the others)
                self._broke(sequence, error)
                sequences[number] = None
        if self._score(_Pass(len(ids), sequences), spans, taken, ids):
            self._not_clean()
        for sequence in sequences:
            if sequence is not None and sequence.ended:
                self._forget(sequence)
        self._deliver()

    def ready(self, rows: int) -> None:
        """`Steps`: allocate what the tap and the sampler write."""
        static, self._rows = self._batcher.static, rows
        buffers = TapBuffers(self._bank, rows, static=static, later=COLUMNS if self._later else 0)
        sampler = Sampler(rows, self._loaded.device, static=static)
        self._work = _Work(buffers, Readout(self._bank, buffers), sampler)
        self._tap.use(buffers)

    def before(self, spans: Items[Span], rows: int) -> None:
        """`Steps`: lay out clamps and sampling of a pass."""
        work = self._working()
        buffers = work.buffers
        self._tap.use(buffers)
        self._drop_cancelled()
        find = self._sequences.get
        sequences = [find(span.request_id) for span in spans]
        self._laid = _Pass(rows, sequences, [number for number, span in enumerate(spans) if span.draws])
        parts: list[tuple[Span, ClampRow | None]] = []
        free = 0
        for number, (span, sequence) in enumerate(zip(spans, sequences, strict=True)):
            if span.first != free:
                raise RuntimeError("the rows of a pass do not lie one request behind the other")
            free += max(0, span.count)
            if sequence is None:
                continue
            try:
                parts += self._lay_out(sequence, span)
            except Exception as error:  # noqa: BLE001  (one request must not end the others)
                self._broke(sequence, error)
                sequences[number] = None
                self._deliver()
        write_rows(buffers, parts, rows)
        buffers.begin([span.first for span in spans if span.position == 0])
        buffers.settle(self._bank)
        buffers.poison(rows)
        self._prepare(self._laid)

    def suspect(self) -> bool:
        """`Steps`: whether a request of the pass may spoil the others'."""
        now = self._laid
        now.apart = any(sequence is not None and sequence.suspect for sequence in now.sequences)
        return now.apart

    def draw(self, logits: Tensor) -> Tensor:
        """`Steps`: choose the next tokens."""
        return self._working().sampler.choose(logits)

    def replays(self) -> bool:
        """`Steps`: whether the pass may be a captured graph, which keeps no log-probabilities."""
        return not self._working().sampler.tells

    def again(self) -> bool:
        """`Steps`: whether the pass must run once more; a second run finds the same clamps and random numbers."""
        work, now = self._working(), self._laid
        later = () if self._later is None else self._later.columns()
        if work.buffers.finite(self._bank, now.rows, later) and work.sampler.finite():
            return False
        now.apart = now.again = True
        _log.warning("a pass computed what is no number, and runs again with its requests apart")
        work.buffers.poison(now.rows)
        return True

    def after(self, spans: Items[Span], tokens: Items[int | None], ids: Items[int]) -> None:
        """`Steps`: score what ran, release it, end what is done."""
        now = self._over
        self._passes += 1
        taken = self.taken(spans[-1].first + spans[-1].count)
        drawing = now.drawing
        choice = now.choice or self._working().sampler.choice(len(drawing))
        broken = {drawing[row] for row in choice.broken()}
        told = {drawing[row]: found for row, found in choice.likelihoods().items()}
        self._clean += 1
        self._arrived(now)
        failed = self._score(now, spans, taken, ids)
        if failed or broken or now.again:
            self._not_clean()
        for number, (sequence, token) in enumerate(zip(now.sequences, tokens, strict=True)):
            if sequence is None:
                continue
            try:
                if now.apart:
                    # What is wrong behind the tapped layer shows once a token is drawn.
                    span = spans[number]
                    finite = taken.finite(slice(span.first, span.first + span.count))
                    sequence.suspect = token is None or not finite
                if token is not None:
                    sequence.drew(token, told.get(number), broken=number in broken)
                if sequence.ended:
                    self._forget(sequence)
            except Exception as error:  # noqa: BLE001  (one request must not end the others)
                self._broke(sequence, error)
        self._landed = None
        if now is self._laid:
            self._laid = _Pass(0, [])
        self._deliver()

    def finish(self, request_id: str, reason: FinishReason) -> None:
        """End a request, because whoever runs passes has found its end. Engine thread."""
        if (sequence := self._sequences.get(request_id)) is not None:
            self._end(sequence, reason)
            self._deliver()

    def lost(self, request_id: str) -> None:
        """Whoever runs passes has dropped a request that was not over: it ends as its policies say. Engine thread."""
        if (sequence := self._sequences.get(request_id)) is not None:
            self._broke(sequence, RuntimeError("it was dropped before its end"))
            self._deliver()

    def died(self, error: BaseException) -> None:
        """`Steps`: every request ends with an error; none was released unscored."""
        self._end_all(Unavailable(DEAD))

    def _kind(self) -> MakeBatching:
        if not self.generates:
            return NoBatcher
        return SeparateBatcher if self._why else Batcher

    def _working(self) -> _Work:
        assert self._work is not None, "the batcher calls `ready` first"
        return self._work

    @property
    def _over(self) -> _Pass:
        """The pass that is over, or is about to be where passes are not launched."""
        return self._landed or self._laid

    def _arrived(self, now: _Pass) -> None:
        """Note that what a launched pass drew is here."""
        for number in now.drawing if now.copy is not None else ():
            if (sequence := now.sequences[number]) is not None:
                sequence.draw.arrived()

    def _take_back(self, sequence: Sequence, now: _Pass) -> None:
        """Ignore what passes after this one do for a request: they were laid out before its clamps changed."""
        found = False
        for further in {*self._in_flight, self._laid} - {now}:
            for number, other in enumerate(further.sequences):
                if other is sequence:
                    further.sequences[number], found = None, True
                    if further.copy is not None and number in further.drawing:
                        sequence.draw.arrived()
        if found:
            self._returned.append(sequence.request_id)

    def _score(self, now: _Pass, spans: Items[Span], taken: Taken, ids: Items[int]) -> bool:
        """Show the rules what is new to them, all sequences of an observer at once; True where any was not scored."""
        groups: dict[int, _Group] = {}
        for span, sequence in zip(spans, now.sequences, strict=True):
            if sequence is None or sequence.ended:
                continue
            try:
                if taken.edited is not None and sequence.row is not None:
                    sequence.look(taken, span)
                strange = ran_others(sequence, span, ids)
                if span.elsewhere and not strange:
                    raise RuntimeError("its token was drawn from a row that is not its last")
            except Exception as error:  # noqa: BLE001  (one request must not end the others)
                self._broke(sequence, error)
                continue
            if span.position + span.count > sequence.scored:
                group = groups.get(id(sequence.observer))
                if group is None:
                    group = groups[id(sequence.observer)] = _Group(sequence.observer, [], [], {})
                if strange:
                    group.faults[len(group.sequences)] = Failure.ROW_MISMATCH
                group.sequences.append(sequence)
                group.spans.append(span)
        run = np.asarray(ids, np.int64)
        failed = False
        for group in groups.values():
            decisions = group.observed(taken, run, ids)
            failed |= any(decision.failure is not None for decision in decisions.values())
            for number, (sequence, span) in enumerate(zip(group.sequences, group.spans, strict=True)):
                before, changes = sequence.scored, sequence.clampings
                try:
                    sequence.saw(span.position + span.count, decisions.get(number), taken, span)
                    if sequence.clampings != changes:
                        self._take_back(sequence, now)
                except Exception as error:  # noqa: BLE001  (one request must not end the others)
                    sequence.withhold(before)
                    self._broke(sequence, error)
        return failed

    def _lay_out(self, sequence: Sequence, span: Span) -> list[tuple[Span, ClampRow | None]]:
        """The clamps of a request's rows in the pass."""
        if span.count < 1:
            raise RuntimeError("a request without rows in the pass, which could draw from another's alone")
        self._begin(sequence)
        if sequence.clamps:
            self._place(sequence)
        return sequence.clamped(span) if sequence.clampings else []

    def _begin(self, sequence: Sequence) -> None:
        """Tell whoever submitted a request, once, that it runs."""
        if not sequence.started:
            sequence.started = True
            sequence.request.admitted()

    def _prepare(self, now: _Pass) -> None:
        """Hand the sampler the settings of the requests that draw."""
        sampler, drawing, sequences = self._working().sampler, now.drawing, now.sequences
        draws = [None if (sequence := sequences[n]) is None else sequence.draw for n in drawing]
        try:
            sampler.prepare(draws)
            return
        except Exception as error:  # noqa: BLE001  (whose settings they were shows below)
            cause = error
        for place, number in enumerate(drawing):
            sequence = sequences[number]
            try:
                sampler.prepare([draws[place]])
            except Exception as error:  # noqa: BLE001  (one request must not end the others)
                assert sequence is not None
                self._broke(sequence, error)
                sequences[number] = draws[place] = None
        try:
            sampler.prepare(draws)
        except Exception:  # noqa: BLE001  (they cannot be told apart, so all of them end)
            for number in drawing:
                if (sequence := sequences[number]) is not None:
                    self._broke(sequence, cause)
                    sequences[number] = None
            sampler.prepare([None] * len(drawing))
        self._deliver()

    def _broke(self, sequence: Sequence, error: Exception) -> None:
        """End a request in which something failed that has to do with it alone, as its policies say."""
        _log.error(
            "a request failed and ends alone", request_id=sequence.request_id, error=type(error).__name__
        )
        self._not_clean()
        decision = pass_failed(sequence.observer, sequence.request.observed, sequence.scored)
        closed = decision.action is Action.BLOCK
        sequence.fail(MonitoringFailed(FAILED, Failure.PASS_FAILED) if closed else Unavailable(BROKEN))
        self._forget(sequence)

    def _end(self, sequence: Sequence, reason: FinishReason, error: MonitorError | None = None) -> None:
        """End a request from outside."""
        try:
            sequence.end(reason, error)
        except Exception:  # noqa: BLE001  (one request must not keep others from ending)
            sequence.fail(error or Unavailable(BROKEN))
        self._forget(sequence)

    def _not_clean(self) -> None:
        self._unscored += 1
        self._clean = 0

    def _admit(self, request: GenerationRequest, emit: Emit, limit: int, held: ExitStack) -> Sequence:
        with self._lock:
            if len(self._sequences) >= self._capacity:
                raise Overloaded(
                    f"{self._capacity} generations run or wait already; try again", retry_after=1.0
                )
            if request.request_id in self._sequences:
                raise Unavailable(f"request id {request.request_id} runs already")
            outbox = self._outboxes.get(emit) or Outbox(emit)
            sequence = Sequence(request, outbox, self._vocabulary, self._end_ids, limit)
            sequence.held = held
            self._outboxes[emit] = outbox
            outbox.users += 1
            self._sequences[request.request_id] = sequence
            return sequence

    def _place(self, sequence: Sequence) -> None:
        """Look up where the tap has a request's clamps, and what becomes of those of policies."""
        if sequence.row is not None:
            return
        sequence.row = clamp_row(sequence.clamps, self._bank)
        sequence.places = {
            plan.policy: Watched(
                tuple(map(self._bank.slot, plan.features)),
                None if self._later is None else self._later.column(plan.probe),
            )
            for plan in sequence.request.plans
            if plan.policy in sequence.suppressing
        }

    def _drop_cancelled(self) -> None:
        while not self._cancelled.empty():
            sequence = self._sequences.get(self._cancelled.get_nowait())
            if sequence is not None:
                self._end(sequence, FinishReason.CANCELLED)
                self._deliver()

    def _forget(self, sequence: Sequence) -> None:
        name, outbox = sequence.request_id, sequence.outbox
        with self._lock:
            if self._sequences.get(name) is not sequence:
                return
            try:
                # As soon as its id is free another request may take it, which the batcher must not drop.
                self._batcher.remove(name)
            except Exception as error:  # noqa: BLE001  (the rest is given back all the same)
                _log.error(KEPT, error=type(error).__name__)
            del self._sequences[name]
            outbox.users -= 1
            if not (outbox.users or outbox.events):
                self._outboxes.pop(outbox.emit, None)
        try:
            sequence.held.close()
        except Exception as error:  # noqa: BLE001  (the request has ended all the same)
            _log.error(KEPT, error=type(error).__name__)

    def _deliver(self) -> None:
        for outbox in list(self._outboxes.values()):
            try:
                outbox.deliver()
            except Exception as error:  # noqa: BLE001  (whoever takes its events ends neither the engine nor others)
                _log.error("events of a pass were not taken", error=type(error).__name__)
            with self._lock:
                if not (outbox.users or outbox.events):
                    self._outboxes.pop(outbox.emit, None)

    def _hold(self, request: GenerationRequest) -> ExitStack:
        """Take what a request needs besides its cache: all of it or, where something raises, nothing.

        Closing the stack gives it back.
        """
        with ExitStack() as held:
            if self._later is not None and (probes := _probes(request)):
                self._later.acquire(probes)
                held.callback(self._later.release, probes)
            if features := [clamp.feature for clamp in request.clamps]:
                self._bank.acquire(features)
                held.callback(self._bank.release, features)
            if request.lease is not None:
                request.lease.acquire()
                held.callback(request.lease.release)
            return held.pop_all()

    def _end_all(self, error: MonitorError) -> None:
        for sequence in list(self._sequences.values()):
            self._end(sequence, FinishReason.ERROR, error)
        self._deliver()


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Sequences of one observer in a pass, each with its span."""

    observer: Observer
    sequences: list[Sequence]
    spans: list[Span]
    faults: dict[int, Failure]
    """Of sequences, by number, that the pass ran other tokens for."""

    def observed(self, taken: Taken, run: NDArray[np.int64], ids: Items[int]) -> Mapping[int, Decision]:
        """What the observer says. One that crashes can no longer say what is closed, so its requests end."""
        try:
            return self.observer.observe_batch(self.blocks(taken, run, ids))
        except Exception:  # noqa: BLE001  (nothing unscored may look clean, and the engine goes on)
            crashed = Decision(action=Action.BLOCK, failure=Failure.RULE_ERROR)
            return dict.fromkeys(range(len(self.sequences)), crashed)

    def blocks(self, taken: Taken, run: NDArray[np.int64], ids: Items[int]) -> Blocks:
        """What of the spans is new to the observer.

        A token of the response is drawn once its prompt was scored to the end, so that no block holds both.
        """
        sequences, spans = self.sequences, self.spans
        scored = np.asarray([sequence.scored for sequence in sequences], np.int64)
        layout = np.asarray([(span.first, span.count, span.position) for span in spans], np.int64)
        first, count, position = layout.T
        skip = np.maximum(scored - position, 0)
        return Blocks(
            slots=np.asarray([sequence.slot for sequence in sequences], np.intp),
            responses=scored >= np.asarray([sequence.prompt for sequence in sequences], np.int64),
            starts=position + skip,
            firsts=first + skip,
            counts=count - skip,
            token_ids=run,
            readings=taken.watched(sequences[0].request.lease),
            faults=self.faults,
            sinks=taken.sinks,
        )


def _probes(request: GenerationRequest) -> list[LaterProbe]:
    """What has to be read behind the tapped layer for a request."""
    return [plan.probe for plan in request.plans if plan.probe is not None]


def _end_ids(loaded: LoadedModel) -> frozenset[int]:
    """End-of-text tokens of model and tokenizer."""
    configured = getattr(loaded.model.generation_config, "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in (*listed, loaded.tokenizer.eos_token_id) if i is not None)
