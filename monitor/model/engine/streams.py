"""Streams: sequences that are read to the tapped layer as they grow, each token once, many in one pass.

What a stream has read stays as keys and values until the stream ends. The scorer's thread runs them, in turn with its
texts.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
import torch

from monitor.errors import (
    BadRequest,
    MonitorError,
    MonitoringFailed,
    Overloaded,
    TooLong,
    Unavailable,
    Violation,
)
from monitor.model.engine.cache_room import room_on
from monitor.model.engine.keys_values import KeysValues
from monitor.model.engine.ragged_pass import Continuation, RaggedPasses
from monitor.model.engine.readout import Readout, Taken
from monitor.model.engine.requests import Read, StreamJob, StreamRead, pass_failed
from monitor.model.engine.scorer import FAILED, Scorer, give_back, observe
from monitor.model.load.model import LoadedModel
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.tap import Tap, TapBuffers
from monitor.records import Action, Coverage, Decision, Detection, Failure

_RETRY = 1.0
"""Seconds after which a caller may try again where there was no room for a stream."""

_log = structlog.get_logger(__name__)


class StreamScorer(Scorer):
    """A scorer that also reads streams. Its methods may be called from any thread.

    `open_stream`, then `feed` any number of times, then `end_stream`, which must be called in every case.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        bank: FeatureBank,
        tap: Tap,
        *,
        batch_tokens: int | None = None,
        waiting: int = 1024,
        streams: int = 1024,
        held_tokens: int | None = None,
        memory: int | None = None,
        alone: bool = False,
    ) -> None:
        """Holds at most so many streams at once, 0 for none, with `held_tokens` tokens together.

        Without `held_tokens` they take half of the memory that is free, and on the CPU at most 4 GiB. `memory` are
        the bytes that this process may use, `alone` says that nothing else computes in it (see `Scorer`).
        """
        super().__init__(loaded, bank, tap, batch_tokens=batch_tokens, waiting=waiting, alone=alone)
        self._ragged = RaggedPasses(loaded)
        self._most, self._held, self._memory = streams, held_tokens, memory
        self._streams: dict[str, _ReadStream] = {}
        self._ready: OrderedDict[str, _ReadStream] = OrderedDict()
        """Those with tokens to run; whose turn it is comes first."""
        self._given = 0
        """Tokens of all streams."""
        self._reading = 0
        """Streams in the pass that runs now."""

    @property
    def why_whole(self) -> str:
        """Why this model cannot read a stream, as a phrase; empty where it can."""
        return self.chunks.why_whole

    @property
    def why_separate(self) -> str:
        """Why every pass reads one stream, as a phrase; empty where passes read many together."""
        return self._ragged.why_separate

    @property
    def longest_stream(self) -> int:
        """Most tokens of a stream: those up to which a token that comes changes nothing of those before it."""
        return min(self._loaded.context, self._loaded.rope.regime(1)[1])

    @property
    def held_tokens(self) -> int:
        """Tokens of all streams for which there is room, known once the scorer has started."""
        assert self._held is not None
        return self._held

    def start(self) -> None:
        """Find out how streams can be read, where there may be any, and begin to score."""
        self.chunks.rehearse()
        if self._most and not self.chunks.why_whole:
            self._ragged.rehearse(self.chunks)
        if self._held is None:
            self._held = self._room() if self._most else 0
        self._thread.start()

    def open_stream(self, job: StreamJob, read: Read) -> None:
        """Begin a stream. What comes of it goes to `read`, on the scorer's thread.

        Raises Unavailable while stopping or after the thread died, Overloaded where there is no room for another
        stream, and BadRequest where this model cannot read in parts.
        """
        if self.why_whole:
            raise BadRequest(Violation("input", f"cannot be read in parts by this model: {self.why_whole}"))
        with self._wake:
            if self._stopping or not self._thread.is_alive():
                raise Unavailable("the scorer does not run")
            if len(self._streams) >= self._most:
                raise Overloaded(f"{self._most} streams are read already; try again", _RETRY)
            if self._given >= self.held_tokens:
                raise Overloaded("the streams that are read fill the memory for them; try again", _RETRY)
            stream = _ReadStream(job, read, KeysValues(self._ragged.slabs))
            stream.heard(job.observed.first, 0)
            if job.lease is not None:
                job.lease.acquire()
            self._streams[job.request_id] = stream

    def feed(self, request_id: str, ids: Sequence[int], *, response: bool) -> None:
        """Append tokens to a stream, which a caller wrote or the model.

        Raises BadRequest where the model cannot run the ids, TooLong where the stream would outgrow it, and Overloaded
        where all streams together would outgrow the memory for them; nothing is appended then. A stream that has ended
        takes nothing.
        """
        self._loaded.check_ids(ids)
        with self._wake:
            stream = self._streams.get(request_id)
            if stream is None or stream.over:
                return
            if stream.fed + len(ids) > self.longest_stream:
                raise TooLong(
                    Violation(
                        "input", f"is longer than the {self.longest_stream} tokens that this model can read"
                    )
                )
            if self._given + len(ids) > max(self.held_tokens, self.longest_stream):
                raise Overloaded("the streams that are read fill the memory for them; try again", _RETRY)
            self._given += len(ids)
            stream.fed += len(ids)
            stream.waiting.append((tuple(ids), response))
            self._ready[request_id] = stream
            self._wake.notify()

    def end_stream(self, request_id: str) -> None:
        """Forget a stream and all that was kept of it. An unknown id is ignored."""
        with self._wake:
            stream = self._streams.pop(request_id, None)
            self._ready.pop(request_id, None)
            if stream is not None:
                self._given -= stream.fed
                stream.gone = True
                if not stream.runs:
                    stream.let_go()

    def running(self) -> int:
        """Texts in the pass that runs now, the one that runs in chunks, and streams that have tokens to run."""
        return super().running() + len(self._ready) + self._reading

    def stop(self, grace: float) -> None:
        """Refuse new texts and streams, score what waits for up to `grace` seconds, end the rest."""
        super().stop(grace)
        with self._wake:
            rest = [stream for stream in self._streams.values() if not stream.over]
        self._deliver_streams([(s, s.ended(Unavailable("the server is stopping"))) for s in rest])

    def _room(self) -> int:
        """Tokens whose keys and values fit: measured on a few tokens, which run here."""
        if self.chunks.why_whole or self._loaded.context < 2:
            return 0
        held = KeysValues(self._ragged.slabs)
        try:
            self.chunks.read_during(lambda: self._ragged.run([Continuation(held, 0, [0, 0])]))
            # Nothing is kept by a model that is read before its first layer.
            each = max(1.0, held.bytes / max(1, held.room))
        except Exception:  # noqa: BLE001  (streams run one by one then, and keep what the model itself makes)
            config = self._loaded.model.config.get_text_config()
            each = 2.0 * config.hidden_size * config.num_hidden_layers * self._loaded.dtype.itemsize
        finally:
            held.release()
        # Twice: keys and values have room for as many tokens again before they are copied to a larger place.
        room = room_on(self._loaded.device, 2 * each, memory=self._memory)
        return max(self.longest_stream, int(room.usual / room.token_bytes))

    def _waits(self) -> bool:
        return bool(self._ready)

    def _beside(self, buffers: TapBuffers, readout: Readout) -> None:
        with self._wake:
            portions = self._portions()
            self._reading = len(portions)
        begun = [portion for portion in portions if self._stream_begins(portion.text)]
        if begun:
            self._read(begun, buffers, readout)
        with self._wake:
            self._reading = 0
            for portion in portions:
                self._settle(portion.text)

    def _portions(self) -> list[_StreamRows]:
        """What the next pass reads: of each stream in turn what comes next, of one phase, as far as there are rows."""
        portions: list[_StreamRows] = []
        rows = 0
        for stream in list(self._ready.values()):
            ids, response = stream.waiting[0]
            ids = ids[: min(self.chunks.most - rows, self.chunks.end(stream.position, self.longest_stream))]
            if not ids or (portions and self.why_separate):
                break
            portions.append(_StreamRows(stream, rows, stream.position, ids, response))
            stream.take(len(ids))
            rows += len(ids)
            self._ready.pop(stream.job.request_id)
        return portions

    def _settle(self, stream: _ReadStream) -> None:
        """After a pass: a stream that has more to run waits for its next turn, one that is gone lets go."""
        stream.runs = False
        if stream.gone or stream.over:
            stream.let_go()
        elif stream.waiting:
            self._ready[stream.job.request_id] = stream

    def _stream_begins(self, stream: _ReadStream) -> bool:
        """Tell whoever wants to know that a stream is in its first pass; False where that ends it."""
        if stream.position:
            return True
        try:
            stream.job.admitted()
        except Exception as error:  # noqa: BLE001  (the other streams of the pass have no part in it)
            self._fail_stream(stream, error)
            return False
        return True

    def _read(self, portions: Sequence[_StreamRows], buffers: TapBuffers, readout: Readout) -> None:
        """Run a pass over streams, and show the rules what was read."""
        for number, portion in enumerate(portions):
            portion.first = sum(len(before.ids) for before in portions[:number])
        rows = sum(len(portion.ids) for portion in portions)
        buffers.begin([portion.first for portion in portions if portion.start == 0])
        buffers.settle(self._bank)
        buffers.poison(rows)
        try:
            ids = self._run_streams(portions)
            taken = readout.take(rows)
        except Exception as error:  # noqa: BLE001  (one bad pass must not end the thread; its streams are UNKNOWN)
            self._passes += 1
            if len(portions) == 1:
                self._fail_stream(portions[0].text, error)
            else:
                # Which of them it was shows when each runs alone; a pass changes nothing that an earlier one wrote.
                for portion in portions:
                    self._read([portion], buffers, readout)
            return
        self._count(observe(portions, taken, ids.numpy().ravel()))
        found: list[tuple[_ReadStream, StreamRead]] = []
        for portion in portions:
            try:
                portion.text.ran(portion, taken)
                found.append((portion.text, portion.text.read()))
            except Exception as error:  # noqa: BLE001  (the other streams of the pass have no part in it)
                self._fail_stream(portion.text, error)
        self._deliver_streams(found)

    def _run_streams(self, portions: Sequence[_StreamRows]) -> torch.Tensor:
        if not self.why_separate:
            return self._ragged.run([Continuation(p.text.past, p.start, p.ids) for p in portions])
        (portion,) = portions
        stream = portion.text
        if stream.cache is None:
            stream.cache = self.chunks.past()
        ids = torch.tensor([portion.ids])
        self.chunks.run(ids, [portion.start + len(portion.ids)], stream.cache)
        return ids

    def _fail_stream(self, stream: _ReadStream, error: Exception) -> None:
        _log.error("a stream could not be read", request_id=stream.job.request_id, error=type(error).__name__)
        self._fell()
        self._deliver_streams([(stream, stream.ended(error))])

    def _deliver_streams(self, found: Sequence[tuple[_ReadStream, StreamRead]]) -> None:
        """Hand over how far streams were read, to each of those who opened them at once."""
        by_taker: dict[Read, list[tuple[str, StreamRead]]] = {}
        for stream, read in found:
            by_taker.setdefault(stream.take_read, []).append((stream.job.request_id, read))
        for take, mine in by_taker.items():
            try:
                take(mine)
            except Exception as error:  # noqa: BLE001  (whoever takes it ends neither the scorer nor others)
                _log.error("what a pass read was not taken", error=type(error).__name__)


@dataclass(slots=True, eq=False)
class _ReadStream:
    """A stream on its way: how far it was read, and what the rules said of it."""

    job: StreamJob
    take_read: Read
    past: KeysValues
    """Its keys and values."""
    fed: int = 0
    """Tokens that were given."""
    position: int = 0
    """Tokens that ran, or run now."""
    waiting: deque[tuple[tuple[int, ...], bool]] = field(default_factory=deque)
    """Tokens that have not run, and whether they are of the response."""
    cache: Any = None
    """What stands for `past` where every pass reads one stream."""
    unscored: int = 0
    before: int = 0
    """Of the unscored tokens, those of earlier passes."""
    sinks: int = 0
    action: Action = Action.ALLOW
    fresh: tuple[Detection, ...] = ()
    """Detections of the pass that has just run."""
    failure: Failure | None = None
    runs: bool = False
    """True while it is in a pass."""
    gone: bool = False
    """True once nobody waits for it."""
    over: bool = False
    """True once nothing more of it is read."""
    _held: bool = True

    def take(self, count: int) -> None:
        """Its next tokens run now."""
        ids, response = self.waiting.popleft()
        if rest := ids[count:]:
            self.waiting.appendleft((rest, response))
        self.runs = True

    def heard(self, decision: Decision, tokens: int) -> None:
        """Note what the rules said of some tokens."""
        self.action = max(self.action, decision.action)
        self.fresh += decision.detections
        if decision.failure is not None:
            self.unscored += tokens
            self.failure = self.failure or decision.failure

    def ran(self, portion: _StreamRows, taken: Taken) -> None:
        """Note that its next tokens ran."""
        self.position = portion.start + len(portion.ids)
        if self.unscored == self.before:
            self.sinks += taken.sinks_in(slice(portion.first, portion.first + len(portion.ids)))
        self.before = self.unscored

    def read(self) -> StreamRead:
        """What is said after a pass."""
        found, self.fresh = self.fresh, ()
        scored = self.position - self.unscored
        return StreamRead(Coverage(self.position, scored, tokens_sinks=self.sinks), self.action, found)

    def ended(self, error: Exception) -> StreamRead:
        """What is said where nothing more of it can be read. If its rules cannot take that in, it is withheld."""
        self.over = True
        self.heard(pass_failed(self.job.observer, self.job.observed, self.position), 0)
        known = error if isinstance(error, MonitorError) else MonitoringFailed(FAILED, Failure.PASS_FAILED)
        scored = self.position - self.unscored
        coverage = Coverage(max(self.fed, scored + 1), scored, tokens_sinks=self.sinks)
        return StreamRead(coverage, self.action, self.fresh, known)

    def let_go(self) -> None:
        """Its policy set's columns are not read for it any more, and its keys and values are free."""
        if self._held:
            self._held, self.over = False, True
            self.past.release()
            self.cache = None
            give_back(self.job.lease)


@dataclass(slots=True, eq=False)
class _StreamRows:
    """Tokens of a stream in a pass."""

    text: _ReadStream
    first: int
    """Row of the first of them."""
    start: int
    """Its position in the stream."""
    ids: tuple[int, ...]
    response: bool

    def part(self, *, response: bool) -> tuple[int, int]:
        """The position of the first token here and how many there are, where they are of this phase."""
        return self.start, len(self.ids) if response == self.response else 0
