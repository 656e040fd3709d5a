"""The engine: watched, clamped generation of many requests at once.

The way of a token, module by module:

1. `requests`: a `GenerationRequest` comes to `Engine.submit`, which keeps a `sequence.Sequence` for it.
2. `paged` (or `serial`, for models that cannot be batched) decides which tokens run in the next pass, and tells the
   engine by `Span`s of rows. `Engine.before` lays out the clamps of every sequence (`tap/clamps`) and the settings of
   the `sampler`.
3. `tap/tap` reads the watched features at its layer, and clamps; the `sampler` chooses the next tokens.
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
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from torch import Tensor

from monitor.errors import ConfigurationError, MonitorError, Overloaded, Unavailable
from monitor.model.engine.detokenizer import Vocabulary
from monitor.model.engine.paged import Batcher, Batching, Limits, Steps
from monitor.model.engine.readout import Readout, Taken
from monitor.model.engine.requests import Emit, GenerationRequest
from monitor.model.engine.sampler import Sampler
from monitor.model.engine.sequence import Outbox, Sequence, ran_others
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
    ) -> None:
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
        self._unscored = 0
        self._laid_out: list[Sequence | None] = []
        """Whose the spans of the pass are; None where the request has ended."""
        self._work: _Work | None = None
        self._rows = 0
        self._end_ids = _end_ids(loaded)
        self._vocabulary = Vocabulary(loaded.tokenizer)
        self._why = why_not_batched(loaded) if self._limits.running else ""
        make: MakeBatching = batcher or self._kind()
        self._batcher = make(loaded, self._limits, self)

    def start(self) -> None:
        """Allocate buffers and cache and begin to run."""
        self._batcher.start()
        self._tap.use(None)
        if self._later is not None and self.captured:
            self._later.freeze()

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
        the model cannot run the ids of its prompt, and ConfigurationError where nothing is generated.
        """
        if not self.generates:
            raise ConfigurationError("this server only scores texts: its setting max_running is 0")
        if self._draining:
            raise Unavailable("the server is stopping")
        if not self.healthy():
            raise Unavailable(DEAD)
        self._loaded.check_ids(request.prompt_ids)
        limit = min(request.sampling.max_new_tokens, self._loaded.context - len(request.prompt_ids))
        self._hold(request)
        try:
            self._admit(request, emit, limit)
        except MonitorError:
            self._release(request)
            raise
        self._batcher.add(request.request_id, request.prompt_ids, limit)
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

    def passes(self) -> int:
        """Forward passes since the start."""
        return self._passes

    def unscored_passes(self) -> int:
        """Passes since the start of which some row could not be scored, or no token be drawn."""
        return self._unscored

    def healthy(self) -> bool:
        """True where the engine thread runs."""
        return self._batcher.alive()

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
        self._laid_out = sequences = [find(span.request_id) for span in spans]
        parts: list[tuple[Span, ClampRow | None]] = []
        for span, sequence in zip(spans, sequences, strict=True):
            if sequence is None:
                continue
            if not sequence.started:
                sequence.started = True
                sequence.request.admitted()
            if sequence.clamps:
                self._place(sequence)
                parts += sequence.clamped(span)
        write_rows(buffers, parts, rows)
        buffers.settle(self._bank)
        buffers.poison(rows)
        drawing = zip(spans, sequences, strict=True)
        work.sampler.prepare([s.draw if s is not None else None for span, s in drawing if span.draws])
        if self._loaded.device.type == "cuda":
            # The pass runs on the stream of transformers' engine, which does not wait for this one.
            torch.cuda.current_stream().synchronize()

    def draw(self, logits: Tensor) -> Tensor:
        """`Steps`: choose the next tokens."""
        return self._working().sampler.choose(logits)

    def after(self, spans: Items[Span], tokens: Items[int | None], ids: Items[int]) -> None:
        """`Steps`: score what ran, release it, end what is done."""
        work = self._working()
        self._passes += 1
        taken = work.readout.take(spans[-1].first + spans[-1].count)
        drawing = [number for number, token in enumerate(tokens) if token is not None]
        broken = {drawing[row] for row in work.sampler.broken(len(drawing))}
        unscored = self._score(spans, taken, ids)
        self._unscored += unscored or bool(broken)
        for number, (sequence, token, span) in enumerate(zip(self._laid_out, tokens, spans, strict=True)):
            if sequence is None:
                continue
            if token is not None and span.count < 1:
                # No row of the pass is its own, so the token was drawn from another's logits.
                sequence.end(FinishReason.ERROR, Unavailable(BROKEN))
            elif token is not None:
                sequence.drew(token, broken=number in broken)
            if sequence.ended:
                self._forget(sequence)
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

    def _score(self, spans: Items[Span], taken: Taken, ids: Items[int]) -> bool:
        """Show the rules what is new to them, all sequences of an observer at once; True where any was not scored."""
        groups: dict[int, _Group] = {}
        for span, sequence in zip(spans, self._laid_out, strict=True):
            if sequence is None or sequence.ended:
                continue
            if taken.edited is not None and sequence.row is not None:
                sequence.look(taken, span)
            if span.position + span.count > sequence.scored:
                group = groups.get(id(sequence.observer))
                if group is None:
                    group = groups[id(sequence.observer)] = _Group(sequence.observer, [], [])
                group.sequences.append(sequence)
                group.spans.append(span)
        run = np.asarray(ids, np.int64)
        failed = False
        for group in groups.values():
            decisions = _observed(group.observer, group.blocks(taken, run, ids))
            failed |= any(decision.failure is not None for decision in decisions.values())
            for number, (sequence, span) in enumerate(zip(group.sequences, group.spans, strict=True)):
                try:
                    sequence.saw(span.position + span.count, decisions.get(number), taken, span)
                except Exception:  # noqa: BLE001  (one request must not end the others)
                    sequence.end(FinishReason.ERROR, Unavailable(BROKEN))
        return failed

    def _admit(self, request: GenerationRequest, emit: Emit, limit: int) -> None:
        with self._lock:
            if len(self._sequences) >= self._capacity:
                raise Overloaded(
                    f"{self._capacity} generations run or wait already; try again", retry_after=1.0
                )
            if request.request_id in self._sequences:
                raise Unavailable(f"request id {request.request_id} runs already")
            outbox = self._outboxes.get(emit) or Outbox(emit)
            sequence = Sequence(request, outbox, self._vocabulary, self._end_ids, limit)
            self._outboxes[emit] = outbox
            outbox.users += 1
            self._sequences[request.request_id] = sequence

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
                sequence.end(FinishReason.CANCELLED)
                self._forget(sequence)
                self._deliver()

    def _forget(self, sequence: Sequence) -> None:
        with self._lock:
            known = self._sequences.pop(sequence.request_id, None)
            sequence.outbox.users -= known is not None
        if known is not None:
            self._release(sequence.request)
            self._batcher.remove(sequence.request_id)

    def _deliver(self) -> None:
        for outbox in list(self._outboxes.values()):
            try:
                outbox.deliver()
            except Exception as error:  # noqa: BLE001  (whoever takes its events ends neither the engine nor others)
                _log.error("events of a pass were not taken", error=type(error).__name__)
            with self._lock:
                if not (outbox.users or outbox.events):
                    self._outboxes.pop(outbox.emit, None)

    def _hold(self, request: GenerationRequest) -> None:
        if self._later is not None:
            self._later.acquire(_probes(request))
        try:
            self._bank.acquire([clamp.feature for clamp in request.clamps])
        except MonitorError:
            self._release_later(request)
            raise
        if request.lease is not None:
            request.lease.acquire()

    def _release(self, request: GenerationRequest) -> None:
        self._release_later(request)
        self._bank.release([clamp.feature for clamp in request.clamps])
        if request.lease is not None:
            request.lease.release()

    def _release_later(self, request: GenerationRequest) -> None:
        if self._later is not None:
            self._later.release(_probes(request))

    def _end_all(self, error: MonitorError) -> None:
        for sequence in list(self._sequences.values()):
            sequence.end(FinishReason.ERROR, error)
            self._forget(sequence)
        self._deliver()


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Sequences of one observer in a pass, each with its span."""

    observer: Observer
    sequences: list[Sequence]
    spans: list[Span]

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
            faults={
                number: Failure.ROW_MISMATCH
                for number, (sequence, span) in enumerate(zip(sequences, spans, strict=True))
                if ran_others(sequence, span, ids)
            },
        )


def _observed(observer: Observer, blocks: Blocks) -> Mapping[int, Decision]:
    """What an observer says. One that crashes can no longer say what is closed, so its requests end."""
    try:
        return observer.observe_batch(blocks)
    except Exception:  # noqa: BLE001  (nothing unscored may look clean, and the engine goes on)
        return dict.fromkeys(range(len(blocks)), Decision(action=Action.BLOCK, failure=Failure.RULE_ERROR))


def _probes(request: GenerationRequest) -> list[LaterProbe]:
    """What has to be read behind the tapped layer for a request."""
    return [plan.probe for plan in request.plans if plan.probe is not None]


def _end_ids(loaded: LoadedModel) -> frozenset[int]:
    """End-of-text tokens of model and tokenizer."""
    configured = getattr(loaded.model.generation_config, "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in (*listed, loaded.tokenizer.eos_token_id) if i is not None)
