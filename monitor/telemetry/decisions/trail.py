"""What happened to one request, noted while it happens: detections, failures, tokens, times, and readings if asked.

Wraps an Observer and hands everything on unchanged. Lets a request that nobody waited for be logged too, without
asking rules that another thread may still use. Does not know how rules decide, nor what becomes of its notes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from monitor.records import Action, Coverage, Decision, Detection, Observer, Phase, TokenBlock
from monitor.telemetry.decisions.tokens import MOST_VALUES, Stretch, stretch


@dataclass(slots=True)
class Times:
    """Nanoseconds since 1970; 0 for what has not happened."""

    begun: int = 0
    """Handed to the engine or the scorer."""
    admitted: int = 0
    """In its first forward pass; 0 where nobody said so."""
    read: int = 0
    """The last token of the prompt was scored."""
    last: int = 0
    """The last token so far was scored."""
    rules: int = 0
    """Spent in the rules, all blocks together. A duration."""


@dataclass(slots=True)
class Trail:
    """An Observer that remembers. One thread writes to it; others may read at any time."""

    inner: Observer
    special: frozenset[int] = frozenset()
    keep_readings: bool = False
    times: Times = field(default_factory=Times)
    detections: list[tuple[int, Detection]] = field(default_factory=list)
    """With the time at which each was found."""
    failures: list[str] = field(default_factory=list)
    action: Action = Action.ALLOW
    tokens: dict[Phase, int] = field(default_factory=lambda: dict.fromkeys(Phase, 0))
    """Scored, per phase."""
    stretches: list[Stretch] = field(default_factory=list)
    _values: int = 0
    _next: int = 0

    def begin(self) -> Decision:
        """Before the first forward."""
        self.times.begun = self.times.begun or time.time_ns()
        return self._noted(self.inner.begin())

    def admitted(self) -> None:
        """Called by whoever runs the model: the request is in its first forward pass now."""
        self.times.admitted = self.times.admitted or time.time_ns()

    def observe(self, block: TokenBlock) -> Decision:
        """After each forward."""
        before = time.time_ns()
        decision = self.inner.observe(block)
        self.times.last = now = time.time_ns()
        self.times.rules += now - before
        if block.phase is Phase.PROMPT:
            self.times.read = now
        self._saw(block)
        return self._noted(decision)

    def failed(self, cause: str) -> Decision:
        """Tokens could not be scored."""
        self.failures.append(cause)
        if self.keep_readings:
            self.stretches.append(Stretch(Phase.PROMPT, self._next, 0, failure=cause))
        return self._noted(self.inner.failed(cause))

    @property
    def coverage(self) -> Coverage:
        """Of what was seen so far; one token short where anything failed, because nobody said how many did."""
        scored = sum(self.tokens.values())
        return Coverage(scored + bool(self.failures), scored)

    @property
    def whole(self) -> bool:
        """False where readings were asked for and there were too many to keep."""
        return self._values <= MOST_VALUES

    def __getattr__(self, name: str) -> Any:
        # Whatever else the observer can do is none of the trail's business.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.inner, name)

    def _saw(self, block: TokenBlock) -> None:
        """Count tokens, and keep their readings, once: a step that is run again brings the same positions."""
        skip = max(0, self._next - block.start)
        new = len(block.token_ids) - skip
        if new <= 0:
            return
        self.tokens[block.phase] += new
        self._next = block.start + len(block.token_ids)
        if self.keep_readings and self.whole:
            part = stretch(block, skip, self.special)
            self._values += len(part.values)
            self.stretches.append(part)
        if not self.whole:
            self.stretches.clear()

    def _noted(self, decision: Decision) -> Decision:
        now = time.time_ns()
        self.detections.extend((now, found) for found in decision.detections)
        self.action = max(self.action, decision.action)
        if decision.restart is not None:
            self._forget(decision.restart)
        return decision

    def _forget(self, position: int) -> None:
        """Tokens from this position on were taken back; the sequence runs again without them."""
        kept = [part for part in self.stretches if part.start + part.tokens <= position]
        cut = [part for part in self.stretches if part.start < position < part.start + part.tokens]
        self.stretches = kept + [_until(part, position) for part in cut]
        self.tokens[Phase.RESPONSE] -= max(0, self._next - position)
        self._next = min(self._next, position)


def _until(part: Stretch, position: int) -> Stretch:
    """The tokens of a stretch below a position."""
    tokens = position - part.start
    values = tuple(value for value in part.values if value[0] < tokens)
    special = tuple(at for at in part.special if at < position)
    return Stretch(part.phase, part.start, tokens, special, values)
