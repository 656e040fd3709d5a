"""Threads that stand in for the engine and the scorer of `fake.FakeRuntime`."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from monitor.errors import MonitorError, Overloaded, TooLong, Unavailable, Violation
from monitor.model.engine.requests import (
    Done,
    Emit,
    Event,
    Finished,
    GenerationRequest,
    Read,
    Released,
    ScoreJob,
    ScoreOutcome,
    StreamJob,
    StreamRead,
)
from monitor.records import (
    Action,
    Blocks,
    Coverage,
    Decision,
    Failure,
    FinishReason,
    Phase,
    ScoredTokens,
    TokenBlock,
    TokenLogprobs,
    TokenSpelling,
    WatchPlan,
)

READS = {"lie": 7, "bomb": 9}
UNREADABLE = "sick"


class Vocabulary:
    """Words by the number in which they first came. 0 is BOS."""

    def __init__(self) -> None:
        self._words = ["<bos>"]
        self._ids = {"<bos>": 0}
        self._lock = threading.Lock()

    def id(self, word: str) -> int:
        with self._lock:
            if word not in self._ids:
                self._ids[word] = len(self._words)
                self._words.append(word)
            return self._ids[word]

    def text(self, token_id: int) -> str:
        return self._words[token_id]

    def spelling(self, token_id: int) -> TokenSpelling:
        text = f"{self._words[token_id]} "
        return TokenSpelling(text, text.encode() if token_id else None)


@dataclass
class Generating:
    """One generation of the fake engine."""

    request: GenerationRequest
    emit: Emit
    done: int = 0
    scored: int = 0
    failed: Failure | None = None
    cancelled: bool = False

    def say(self, event: Event) -> None:
        self.emit([(self.request.request_id, event)])


class Loop:
    """A thread with a queue in front of it. `gate` holds it, `die` ends it without a word."""

    def __init__(self, capacity: int = 1000) -> None:
        self.capacity = capacity
        self.gate = threading.Event()
        self.gate.set()
        self.cancelled: list[str] = []
        self.submitted: list[str] = []
        self._items: deque[object] = deque()
        self._alive = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._alive = True
        self._thread.start()

    def die(self) -> None:
        self._alive = False
        self.gate.set()

    def stop(self, grace: float) -> None:
        deadline = time.monotonic() + grace
        while self._items and time.monotonic() < deadline:
            time.sleep(0.005)
        self.die()
        if self._thread.is_alive():
            self._thread.join()

    def healthy(self) -> bool:
        return self._alive

    def queue_depth(self) -> int:
        return len(self._items)

    def running(self) -> int:
        return 0

    def cache_used(self) -> float:
        return min(1.0, len(self._items) / self.capacity)

    def passes(self) -> int:
        return len(self.submitted)

    def _queue(self, request_id: str, item: object) -> None:
        if not self._alive:
            raise Unavailable("the engine does not run")
        if len(self._items) >= self.capacity:
            raise Overloaded("the queue is full; try again", retry_after=0.25)
        self.submitted.append(request_id)
        self._items.append(item)

    def _run(self) -> None:
        while self._alive:
            self.gate.wait()
            if not self._items:
                time.sleep(0.0005)
                continue
            item = self._items.popleft()
            if self._alive and self.step(item):
                self._items.append(item)

    def step(self, item: object) -> bool:
        """Work on an item; True where there is more to do."""
        raise AssertionError


class FakeEngine(Loop):
    """Generates one token of each request in turn."""

    def __init__(self, vocabulary: Vocabulary, watch: WatchPlan) -> None:
        super().__init__()
        self._vocabulary, self._watch = vocabulary, watch
        self.why_separate = ""
        self.fault: MonitorError | None = None
        self.crash = False
        self.running_now: dict[str, Generating] = {}
        self.steps_left: int | None = None

    @contextlib.contextmanager
    def stopped_behind(self, steps: int) -> Iterator[None]:
        """The engine makes so many steps, and no more until the block has been left."""
        self.steps_left = steps
        try:
            yield
        finally:
            self.steps_left = None
            self.gate.set()

    def submit(self, request: GenerationRequest, emit: Emit) -> None:
        generating = Generating(request, emit)
        if self.crash:
            raise ValueError(f"cannot handle {' '.join(map(self._vocabulary.text, request.prompt_ids))}")
        self._queue(request.request_id, generating)
        self.running_now[request.request_id] = generating

    def cancel(self, request_id: str) -> None:
        self.cancelled.append(request_id)
        if request_id in self.running_now:
            self.running_now[request_id].cancelled = True

    def step(self, item: object) -> bool:
        assert isinstance(item, Generating)
        if self.steps_left is not None:
            self.steps_left -= 1
            if self.steps_left <= 0:
                self.gate.clear()
        if item.cancelled:
            return self._finish(item, FinishReason.CANCELLED)
        if self.fault is not None:
            return self._finish(item, FinishReason.ERROR, self.fault)
        return self._token(item)

    def _token(self, item: Generating) -> bool:
        prompt = item.request.prompt_ids
        first = item.done == 0
        start = 0 if first else len(prompt) + item.done - 1
        words = prompt[1:] or (0,)
        ids = prompt if first else (words[(item.done - 1) % len(words)],)
        block, cause = read(
            self._vocabulary, self._watch, Phase.PROMPT if first else Phase.RESPONSE, start, ids
        )
        decision = observe(item.request, block, cause)
        if decision.failure is not None:
            item.failed = decision.failure
        item.done += 1
        item.scored += 0 if cause else len(ids)
        if decision.action is Action.BLOCK:
            released = len(prompt) + item.done - 2
            item.say(Released("", None, decision.detections, released))
            return self._finish(item, FinishReason.POLICY)
        texts = [self._vocabulary.text(i) for i in ids]
        if not first and texts[0] == "end":
            return self._finish(item, FinishReason.STOP)
        tokens = shown(self._watch, block) if item.request.include_tokens else None
        text = "" if first else texts[0] + " "
        told = () if first else likely(item.request, start, ids[0])
        if text or tokens is not None or decision.detections:
            item.say(Released(text, tokens, decision.detections, start + len(ids), told))
        if item.done > item.request.sampling.max_new_tokens:
            return self._finish(item, FinishReason.LENGTH)
        return True

    def _finish(self, item: Generating, reason: FinishReason, error: MonitorError | None = None) -> bool:
        run = len(item.request.prompt_ids) + max(0, item.done - 1) if item.done else 0
        coverage = Coverage(run, item.scored, item.request.tokens_truncated)
        released = run - (1 if reason is FinishReason.POLICY else 0)
        self.running_now.pop(item.request.request_id, None)
        prompt = item.request.prompt_ids
        words = prompt[1:] or (0,)
        ids = (*prompt, *(words[at % len(words)] for at in range(max(0, item.done - 1))))[:released]
        item.say(Finished(reason, coverage, released, max(0, item.done - 1), error=error, ids=ids))
        return False


@dataclass(eq=False)
class Reading:
    """One stream of the fake scorer."""

    job: StreamJob
    read: Read
    action: Action
    fed: int = 0
    position: int = 0
    scored: int = 0


class FakeScorer(Loop):
    """Scores a whole text at a time."""

    def __init__(self, vocabulary: Vocabulary, watch: WatchPlan) -> None:
        super().__init__()
        self._vocabulary, self._watch = vocabulary, watch
        self.streams: dict[str, Reading] = {}
        self.ended: list[str] = []
        """Streams that were open."""
        self.why_whole, self.longest_stream = "", 1000
        self.forget = 0
        """Tokens that it leaves out without saying so."""

    def submit(self, job: ScoreJob, done: Done) -> None:
        self._queue(job.request_id, (job, done))

    def cancel(self, request_id: str) -> None:
        self.cancelled.append(request_id)

    def open_stream(self, job: StreamJob, read: Read) -> None:
        if not self._alive:
            raise Unavailable("the engine does not run")
        if len(self.streams) >= self.capacity:
            raise Overloaded("too many streams; try again", retry_after=0.25)
        self.streams[job.request_id] = Reading(job, read, job.observed.first.action)

    def feed(self, request_id: str, ids: tuple[int, ...], *, response: bool) -> None:
        found = self.streams[request_id]
        if found.fed + len(ids) > self.longest_stream:
            raise TooLong(Violation("input", "is longer than the model can read"))
        found.fed += len(ids)
        self._queue(request_id, (found, tuple(ids), response))

    def end_stream(self, request_id: str) -> None:
        if self.streams.pop(request_id, None) is not None:
            self.ended.append(request_id)

    def _read(self, stream: Reading, ids: tuple[int, ...], response: bool) -> None:
        phase = Phase.RESPONSE if response else Phase.PROMPT
        block, cause = read(self._vocabulary, self._watch, phase, stream.position, ids)
        decision = observe(stream.job, block, cause)
        stream.position += len(ids)
        stream.scored += 0 if cause else len(ids)
        stream.action = max(stream.action, decision.action)
        coverage = Coverage(stream.position, stream.scored)
        stream.read([(stream.job.request_id, StreamRead(coverage, stream.action, decision.detections))])

    def step(self, item: object) -> bool:
        assert isinstance(item, tuple)
        if isinstance(item[0], Reading):
            self._read(*item)
            return False
        job, done = item
        ids = job.ids[: len(job.ids) - self.forget]
        behind = len(ids) if job.prompt is None else min(job.prompt, len(ids))
        parts = ((Phase.PROMPT, 0, ids[:behind]), (Phase.RESPONSE, behind, ids[behind:]))
        block, failed = None, False
        for phase, start, part in parts:
            if part:
                block, cause = read(self._vocabulary, self._watch, phase, start, part)
                observe(job, block, cause)
                failed = failed or cause is not None
        coverage = Coverage(len(ids), 0 if failed else len(ids), job.tokens_truncated)
        tokens = shown(self._watch, block) if job.include_tokens and block is not None else None
        done([(job.request_id, ScoreOutcome(coverage, tokens))])
        return False


def likely(asked: GenerationRequest, position: int, token_id: int) -> tuple[TokenLogprobs, ...]:
    """The drawn token has -0.25, and the words that came first, two at the most, are the likeliest beside it."""
    if asked.logprobs is None:
        return ()
    others = tuple((number, -1.0 - number) for number in range(min(asked.logprobs, 2)))
    return (TokenLogprobs(position, position - len(asked.prompt_ids), token_id, -0.25, others),)


def read(
    vocabulary: Vocabulary, watch: WatchPlan, phase: Phase, start: int, ids: tuple[int, ...]
) -> tuple[TokenBlock, Failure | None]:
    """What the words read in the watched features, and why they could not be read."""
    readings = np.zeros((len(ids), len(watch)), np.float32)
    cause = None
    for row, token_id in enumerate(ids):
        word = vocabulary.text(token_id)
        if word == UNREADABLE:
            cause = Failure.NON_FINITE
        elif word in READS and READS[word] in watch.features:
            readings[row, watch.column(READS[word])] = 1.0
    return TokenBlock(phase, start, ids, readings), cause


def observe(
    asked: GenerationRequest | ScoreJob | StreamJob, block: TokenBlock, cause: Failure | None
) -> Decision:
    """What the engine does with a block; where nothing is new, a decision without anything."""
    blocks = Blocks.of([(asked.observed.slot, block)])
    blocks = replace(blocks, faults={} if cause is None else {0: cause})
    return asked.observer.observe_batch(blocks).get(0, Decision())


def shown(watch: WatchPlan, block: TokenBlock) -> ScoredTokens:
    """Tokens with what is not zero."""
    features = np.asarray(watch.features, np.int64)
    return ScoredTokens(block.phase, block.start, block.token_ids, features, block.readings)
