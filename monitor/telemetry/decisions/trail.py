"""Trails: what happened to each request, noted while it happens: detections, tokens, times, and readings if asked.

`Trails` wraps an Observer and hands everything on unchanged. With a trail, a request that nobody waited for can be
logged too. A request whose trail cannot be kept counts as unscored, because the decision log would say too little of
it; all others go on.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from monitor.records import (
    Action,
    Blocks,
    Coverage,
    Decision,
    Detection,
    Failure,
    ObservedRequest,
    Observer,
    Phase,
    TokenBlock,
)
from monitor.telemetry.decisions.tokens import MOST_VALUES, Stretch, stretch

_log = structlog.get_logger(__name__)
_WITHHELD = Decision(action=Action.BLOCK, failure=Failure.RULE_ERROR)
_FIRST = 64
"""Slots at first; doubled when they do not suffice."""


class JudgedRequest(ObservedRequest, Protocol):
    """A request whose rules say at any time what they make of it. Any thread."""

    @property
    def action(self) -> Action:
        """The strongest enforced action so far."""

    @property
    def failure(self) -> Failure | None:
        """The first cause for which anything of it could not be scored."""


@dataclass(frozen=True, slots=True)
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
    """Spent in the rules on its tokens. A duration."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class Trail:
    """One request. One thread writes to it; others may read at any time."""

    request: JudgedRequest
    trails: Trails
    begun: int
    keeps_readings: bool = False
    """Whether its readings are kept, also where no others are."""
    admitted_at: int = 0
    detections: list[tuple[int, Detection]] = field(default_factory=list)
    """With the time at which each was found."""
    stretches: list[Stretch] = field(default_factory=list)
    values: int = 0
    """Readings that were kept."""

    def admitted(self) -> None:
        """Called by whoever runs the model: the request is in its first forward pass now."""
        self.admitted_at = self.admitted_at or time.time_ns()

    @property
    def times(self) -> Times:
        """When what happened."""
        return self.trails.times(self)

    @property
    def tokens(self) -> dict[Phase, int]:
        """Scored, per phase."""
        return self.trails.tokens(self.request.slot)

    @property
    def coverage(self) -> Coverage:
        """Of what was seen so far; one token short where anything failed, because nobody said how many did."""
        scored = sum(self.tokens.values())
        return Coverage(scored + (self.request.failure is not None), scored)

    @property
    def whole(self) -> bool:
        """False where readings were asked for and there were too many to keep."""
        return self.values <= MOST_VALUES

    def keep(self, part: Stretch) -> None:
        """Keep the readings of a block, or why there are none, unless there are too many."""
        self.values += len(part.values)
        if self.whole:
            self.stretches.append(part)
        else:
            self.stretches.clear()


class Trails:
    """The trails of all requests under a policy set: an Observer that remembers. Thread-safe."""

    def __init__(
        self, inner: Observer, special: frozenset[int] = frozenset(), *, readings: bool = False
    ) -> None:
        """`special` are token ids that rules pass over; `readings` are kept where asked for."""
        self._inner, self._special, self._readings = inner, special, readings
        self._asked = weakref.WeakSet[Trail]()
        """Those whose readings are kept although no others are."""
        self._open = weakref.WeakValueDictionary[int, Trail]()
        """By slot, as long as somebody wants to know."""
        self._lock = threading.Lock()
        self._scored = np.zeros((_FIRST, 2), np.int64)
        """`[slots, phases]` tokens."""
        self._clock = np.zeros((_FIRST, 3), np.int64)
        """`[slots]` as in `Times`: `read`, `last` and `rules`."""

    def open(self, request: JudgedRequest, *, readings: bool = False) -> Trail:
        """The trail of a request that is handed to the engine or the scorer now; `readings` keeps its own."""
        trail = Trail(request, self, time.time_ns(), readings or self._readings)
        with self._lock:
            if readings and not self._readings:
                self._asked.add(trail)
            while request.slot >= len(self._scored):
                self._scored = np.concatenate([self._scored, np.zeros_like(self._scored)])
                self._clock = np.concatenate([self._clock, np.zeros_like(self._clock)])
            self._scored[request.slot] = self._clock[request.slot] = 0
            self._open[request.slot] = trail
        self._note(trail, request.first)
        return trail

    def observe_batch(self, blocks: Blocks) -> Mapping[int, Decision]:
        """After each forward; what could not be scored is not counted."""
        before = time.time_ns()
        decisions = self._inner.observe_batch(blocks)
        try:
            self._count(blocks.scored(decisions), before, time.time_ns())
        except Exception:  # noqa: BLE001  (what is wrong with one of them must not end the others)
            lost = set(range(len(blocks)))
        else:
            lost = {
                number
                for number in self._numbers(blocks, decisions)
                if not self._kept(blocks, number, decisions)
            }
        return self._unkept(blocks, decisions, sorted(lost)) if lost else decisions

    def times(self, trail: Trail) -> Times:
        """When what happened to a request."""
        with self._lock:
            read, last, rules = self._clock[trail.request.slot].tolist()
        return Times(trail.begun, trail.admitted_at, read, last, rules)

    def tokens(self, slot: int) -> dict[Phase, int]:
        """Scored, per phase."""
        with self._lock:
            prompt, response = self._scored[slot].tolist()
        return {Phase.PROMPT: prompt, Phase.RESPONSE: response}

    def _count(self, blocks: Blocks, before: int, now: int) -> None:
        slots, counts, responses = blocks.slots, blocks.counts, blocks.responses
        rules = _shares(now - before, counts)
        with self._lock:
            self._scored[slots, responses.astype(np.intp)] += counts
            self._clock[slots[~responses], 0] = now
            self._clock[slots, 1] = now
            self._clock[slots, 2] += rules

    def _numbers(self, blocks: Blocks, decisions: Mapping[int, Decision]) -> Iterable[int]:
        """The blocks of which something may be kept besides their number of tokens."""
        return range(len(blocks)) if self._readings or self._asked else decisions

    def _kept(self, blocks: Blocks, number: int, decisions: Mapping[int, Decision]) -> bool:
        """Keep what was read of a block and decided; False where that failed."""
        trail, decision = self._open.get(int(blocks.slots[number])), decisions.get(number)
        if trail is None:
            return True
        try:
            if trail.keeps_readings and trail.whole:
                self._keep(trail, blocks.block(number), decision)
            if decision is not None:
                self._note(trail, decision)
        except Exception as error:  # noqa: BLE001  (the other requests of the pass have no part in it)
            _log.error("what happened to a request could not be kept", error=type(error).__name__)
            return False
        return True

    def _keep(self, trail: Trail, block: TokenBlock, decision: Decision | None) -> None:
        if decision is not None and decision.failure is not None:
            trail.keep(Stretch(block.phase, block.start, 0, failure=decision.failure))
        else:
            trail.keep(stretch(block, self._special))

    def _unkept(
        self, blocks: Blocks, decisions: Mapping[int, Decision], lost: list[int]
    ) -> dict[int, Decision]:
        """The decisions, with those of the blocks in `lost` as the rules decide of what was not scored."""
        nothing = np.zeros(len(lost), np.intp)
        told = Blocks(
            slots=blocks.slots[lost],
            responses=blocks.responses[lost],
            starts=blocks.starts[lost] + blocks.counts[lost],
            firsts=nothing,
            counts=nothing,
            token_ids=blocks.token_ids[:0],
            readings=blocks.readings[:0],
            faults=dict.fromkeys(range(len(lost)), Failure.RULE_ERROR),
        )
        try:
            said = self._inner.observe_batch(told)
        except Exception:  # noqa: BLE001  (who cannot take that in can no longer say what is closed)
            said = {}
        out = dict(decisions)
        for place, number in enumerate(lost):
            found = decisions[number].detections if number in decisions else ()
            failed = said.get(place) or _WITHHELD
            out[number] = replace(failed, detections=(*found, *failed.detections))
        return out

    def _note(self, trail: Trail, decision: Decision) -> None:
        if decision.detections:
            now = time.time_ns()
            trail.detections.extend((now, found) for found in decision.detections)


def _shares(duration: int, counts: NDArray[Any]) -> NDArray[np.int64]:
    """What of a duration falls to each block, by its tokens."""
    return np.asarray(duration * counts // max(int(counts.sum()), 1), np.int64)
