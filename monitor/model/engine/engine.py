"""Watched, clamped generation of many requests at once.

Knows tracks, the tap and the batcher, and joins them: before each pass it lays out clamps, after each pass it hands
every request its rows. Does not know policies (an `Observer` stands for them), RPC or metrics.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from monitor.errors import MonitorError, Overloaded, Unavailable
from monitor.model.engine.detokenizer import Vocabulary
from monitor.model.engine.paged import Batcher, Batching, Limits, Steps
from monitor.model.engine.readout import Readout
from monitor.model.engine.requests import Emit, GenerationRequest
from monitor.model.engine.rows import Rows
from monitor.model.engine.sampler import Sampler
from monitor.model.engine.sequence import Track
from monitor.model.engine.serial import SeparateBatcher, why_not_batched
from monitor.model.engine.together import score_together
from monitor.model.load.model import LoadedModel
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.clamps import clamp_row, write_rows
from monitor.model.tap.late_probes import COLUMNS, LaterTaps
from monitor.model.tap.span import Span
from monitor.model.tap.suppression_check import Watched
from monitor.model.tap.tap import Tap, TapBuffers
from monitor.records import FinishReason, LaterProbe

MISPLACED = "row_mismatch"
"""The rows that a pass reports for a request hold other tokens than the request's."""
DEAD = "the engine does not run; the server must be restarted"

MakeBatching = Callable[[LoadedModel, Limits, Steps], Batching]


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
        self._tracks: dict[str, Track] = {}
        self._runs: dict[str, Track] = {}
        """By the name under which the batcher runs them."""
        self._lock = threading.Lock()
        self._cancelled: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._draining = False
        self._passes = 0
        self._unscored = 0
        self._end_ids = _end_ids(loaded)
        self._vocabulary = Vocabulary(loaded.tokenizer)
        self._why = why_not_batched(loaded.model)
        make: MakeBatching = batcher or (SeparateBatcher if self._why else Batcher)
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
        while self._tracks and self.healthy() and time.monotonic() < deadline:
            time.sleep(0.02)
        self._batcher.stop(timeout=10.0)
        self._end_all(Unavailable("the server is stopping"))

    def submit(self, request: GenerationRequest, emit: Emit) -> None:
        """Queue a request; its events go to `emit` on the engine thread.

        Raises Unavailable while stopping or after the engine died, Overloaded where the queue is full.
        """
        if self._draining:
            raise Unavailable("the server is stopping")
        if not self.healthy():
            raise Unavailable(DEAD)
        limit = min(request.sampling.max_new_tokens, self._loaded.context - len(request.prompt_ids))
        track = Track(request, emit, self._loaded.tokenizer, self._vocabulary.text, self._end_ids, limit)
        self._hold(track)
        try:
            self._admit(track)
        except MonitorError:
            self._release(track)
            raise
        self._batcher.add(request.request_id, request.prompt_ids, limit)
        if not self._batcher.alive():
            self._end_all(Unavailable(DEAD))

    @property
    def why_separate(self) -> str:
        """Why each pass runs one request; empty where continuous batching runs many together."""
        return self._why

    @property
    def captured(self) -> bool:
        """True where passes replay CUDA graphs that were captured at the start."""
        return self._batcher.static and hasattr(self, "_buffers")

    def cancel(self, request_id: str) -> None:
        """End a request before the next pass and free its cache; does nothing where it has ended."""
        self._cancelled.put(request_id)

    def queue_depth(self) -> int:
        """Requests that were submitted and are in no pass yet."""
        return max(0, len(self._tracks) - self._batcher.running())

    def running(self) -> int:
        """Requests in the last pass, or that take turns where a pass runs one."""
        return self._batcher.running() if self._tracks else 0

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
        static = self._batcher.static
        self._buffers = TapBuffers(self._bank, rows, static=static, later=COLUMNS if self._later else 0)
        self._readout = Readout(self._bank, self._buffers)
        self._sampler = Sampler(rows, self._loaded.device, static=static)
        self._tap.use(self._buffers)

    def before(self, spans: Sequence[Span], rows: int) -> None:
        """`Steps`: lay out clamps and sampling of a pass."""
        self._tap.use(self._buffers)
        self._drop_cancelled()
        tracks = [self._runs.get(span.request_id) for span in spans]
        for track in tracks:
            if track is not None:
                track.request.admitted()
            if track is not None and track.clamps and track.row is None:
                self._place(track)
        own = [track.clamped(span) for span, track in zip(spans, tracks, strict=True) if track is not None]
        write_rows(self._buffers, [part for parts in own for part in parts], rows)
        self._buffers.settle(self._bank)
        self._buffers.poison(rows)
        draws = [track for span, track in zip(spans, tracks, strict=True) if span.draws]
        self._sampler.prepare([track.draw if track is not None else None for track in draws])
        if self._loaded.device.type == "cuda":
            # The pass runs on the library's own stream, which does not wait for this one.
            torch.cuda.current_stream().synchronize()

    def draw(self, logits: Tensor) -> Tensor:
        """`Steps`: choose the next tokens."""
        return self._sampler.choose(logits)

    def after(self, spans: Sequence[Span], tokens: Sequence[int | None], ids: Sequence[int]) -> None:
        """`Steps`: score what ran, release it, end what is done."""
        self._passes += 1
        rows = spans[-1].first + spans[-1].count
        taken = self._readout.take(rows)
        broken = self._sampler.broken(sum(token is not None for token in tokens))
        self._unscored += not taken.clean or any(broken)
        lost = iter(broken)
        drawn = [None if token is None else (token, next(lost)) for token in tokens]
        seen = [
            (token, track, _held(taken.of(span, track), span, track, ids))
            for span, token in zip(spans, drawn, strict=True)
            if (track := self._runs.get(span.request_id)) is not None
        ]
        score_together((track, found) for _, track, found in seen)
        for token, track, found in seen:
            track.saw(found)
            if token is not None:
                track.drew(token[0], broken=token[1])
            if track.ended:
                self._forget(track)
            elif track.restarting:
                self._run_again(track)

    def died(self, error: BaseException) -> None:
        """`Steps`: every request ends with an error; none was released unscored."""
        self._end_all(Unavailable(DEAD))

    def _admit(self, track: Track) -> None:
        with self._lock:
            if len(self._tracks) >= self._capacity:
                raise Overloaded(
                    f"{self._capacity} generations run or wait already; try again", retry_after=1.0
                )
            if track.request.request_id in self._tracks:
                raise Unavailable(f"request id {track.request.request_id} runs already")
            self._tracks[track.request.request_id] = self._runs[track.run_id] = track

    def _place(self, track: Track) -> None:
        """Look up where the tap has a request's clamps, and what becomes of those of policies."""
        track.row = clamp_row(track.clamps, self._bank)
        track.places = {
            plan.policy: Watched(
                tuple(map(self._bank.slot, plan.features)),
                None if self._later is None else self._later.column(plan.probe),
            )
            for plan in track.request.plans
            if plan.policy in track.suppressing
        }

    def _run_again(self, track: Track) -> None:
        """Drop the cache of a sequence and compute it again under its present clamps."""
        with self._lock:
            self._runs.pop(track.run_id, None)
        self._batcher.remove(track.run_id)
        track.again()
        with self._lock:
            self._runs[track.run_id] = track
        self._batcher.add(track.run_id, track.ids, track.remaining)

    def _drop_cancelled(self) -> None:
        while not self._cancelled.empty():
            track = self._tracks.get(self._cancelled.get_nowait())
            if track is not None:
                track.end(FinishReason.CANCELLED)
                self._forget(track)

    def _forget(self, track: Track) -> None:
        with self._lock:
            known = self._tracks.pop(track.request.request_id, None)
            self._runs.pop(track.run_id, None)
        if known is not None:
            self._release(track)
            self._batcher.remove(track.run_id)

    def _hold(self, track: Track) -> None:
        if self._later is not None:
            self._later.acquire(_probes(track))
        try:
            self._bank.acquire([clamp.feature for clamp in track.request.clamps])
        except MonitorError:
            self._release_later(track)
            raise
        if track.request.lease is not None:
            track.request.lease.keep()

    def _release(self, track: Track) -> None:
        self._release_later(track)
        self._bank.release([clamp.feature for clamp in track.request.clamps])
        if track.request.lease is not None:
            track.request.lease.release()

    def _release_later(self, track: Track) -> None:
        if self._later is not None:
            self._later.release(_probes(track))

    def _end_all(self, error: MonitorError) -> None:
        for track in list(self._tracks.values()):
            track.end(FinishReason.ERROR, error)
            self._forget(track)


def _held(rows: Rows, span: Span, track: Track, ids: Sequence[int]) -> Rows:
    """The rows, marked as unscored where the pass ran other tokens than this request's in their places."""
    ran = ids[span.first : span.first + span.count]
    if ran == track.ids[span.position : span.position + span.count]:
        return rows
    return replace(rows, clean=False, fault=MISPLACED)


def _probes(track: Track) -> list[LaterProbe]:
    """What has to be read behind the tapped layer for a request."""
    return [plan.probe for plan in track.request.plans if plan.probe is not None]


def _end_ids(loaded: LoadedModel) -> frozenset[int]:
    """End-of-text tokens of model and tokenizer."""
    configured = getattr(loaded.model.generation_config, "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in (*listed, loaded.tokenizer.eos_token_id) if i is not None)
