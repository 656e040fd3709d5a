"""The rules of a policy set at work: blocks of readings in, detections, actions and clamps out.

All requests of a set share one table of arrays; every pass of an engine goes through it in a few steps of many requests
at once. What was not scored (a gap, a NaN, a fault that the engine reports) makes a request's verdict UNKNOWN for good.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from monitor.policy.policy import Policy
from monitor.policy.rules import suppression
from monitor.policy.rules.detect import Firing, Reach
from monitor.policy.rules.evidence import EvidenceStore, Tokens
from monitor.policy.rules.pooling import CHUNK, Extent, Scores
from monitor.policy.rules.program import Program, strongest
from monitor.policy.rules.sessions import SessionPools
from monitor.policy.rules.state import NO_PHASE, PHASES, Table
from monitor.policy.rules.step import Bools, InSession, Lanes, Step, settle, step
from monitor.policy.rules.weights import Active, ScoredRows, active, spread
from monitor.records import (
    Action,
    Blocks,
    Clamp,
    Coverage,
    Decision,
    Detection,
    Failure,
    Status,
    TokenBlock,
    TokenText,
    Verdict,
)

_MOST_TOKENS = 2048
"""Tokens of one step, padding included; longer blocks go in pieces, which changes no number."""
Indices = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Applying:
    """The policies that apply to a request."""

    policies: tuple[Policy, ...]
    rules: NDArray[np.bool_]
    """`[rules]` of the program that are theirs."""
    checks: NDArray[np.bool_]
    """`[checks]` of the program that are theirs."""

    @property
    def closed(self) -> bool:
        """True where one that acts blocks what could not be scored."""
        return any(policy.closed and policy.enforced for policy in self.policies)


class RequestRules:
    """One request under the rules: `monitor.records.ObservedRequest`, and its verdict in the end.

    As long as anybody holds it, its slot is its own.
    """

    def __init__(
        self,
        rules: Rules,
        applying: Applying,
        token_text: TokenText,
        special: frozenset[int],
        session: SessionPools | None,
    ) -> None:
        self.applying, self.token_text, self.special, self.session = applying, token_text, special, session
        self.failure: Failure | None = None
        """The first cause for which anything of it could not be scored."""
        self.action = Action.ALLOW
        """The strongest enforced action so far."""
        self.detections: list[Detection] = []
        self.past: list[Reach] = []
        """Of phases that are over."""
        self._rules = rules
        self.slot = rules.take(self)
        if session is not None and session.lost:
            self.failed(Failure.SESSION_LOST)
        self.first = self.decision()

    @property
    def status(self) -> Status:
        """UNKNOWN once anything could not be scored."""
        return Status.CHECKED if self.failure is None else Status.UNKNOWN

    def observe(self, block: TokenBlock) -> Decision:
        """Score a block of this request alone; gives where it stands then."""
        return self._rules.observe_batch(Blocks.of([(self.slot, block)])).get(0) or self.decision()

    def failed(self, cause: Failure) -> Decision:
        """Tokens could not be scored; the first cause is kept."""
        self.failure = self.failure or cause
        if self._closed(cause):
            self.action = Action.BLOCK
        return self.decision(failure=cause)

    def verdict(self, coverage: Coverage) -> Verdict:
        """Everything about the request; UNKNOWN unless every token that was run was scored."""
        shown, judged, now = self._rules.reach(self)
        coverage = replace(coverage, tokens_judged=judged)
        shortfall = _shortfall(coverage, shown, ruled=bool(self._rules.program.rules))
        failure = self.failure or shortfall
        status = Status.CHECKED if failure is None else Status.UNKNOWN
        blocks = any(cause is not None and self._closed(cause) for cause in (self.failure, shortfall))
        action = Action.BLOCK if blocks else self.action
        scores = tuple(s for reach in (*self.past, *now) for s in reach.scores(self._rules.program))
        return Verdict(status, action, coverage, tuple(self.detections), scores, failure)

    def fired(self, rules: list[int], detections: tuple[Detection, ...]) -> None:
        """Rules, as numbers in the program, have fired."""
        program = self._rules.program
        self.action = max(self.action, strongest([program.rules[i] for i in rules]))
        self.detections.extend(detections)

    def decision(self, detections: tuple[Detection, ...] = (), failure: Failure | None = None) -> Decision:
        """Where the request stands."""
        clamps, names = self._rules.in_force(self)
        return Decision(detections, self.action, clamps, names, failure)

    def _closed(self, cause: Failure) -> bool:
        """Whether a cause blocks; a lost session concerns those policies alone that add up over sessions."""
        if cause is Failure.SESSION_LOST and self.session is not None:
            return any(policy.closed and policy.enforced for policy in self.session.makers)
        return self.applying.closed


@dataclass(frozen=True, eq=False)
class _Counted:
    """The tokens of a call that rules look at, block by block."""

    lanes: Indices
    """`[lanes]` blocks that have any, by number."""
    slots: Indices
    """`[lanes]`"""
    firsts: Indices
    """`[lanes]` of the arrays below."""
    lengths: Indices
    """`[lanes]`"""
    rows: Indices
    """`[tokens]` in the readings."""
    positions: NDArray[np.int64]
    """`[tokens]`"""
    before: NDArray[np.int64]
    """`[lanes]` tokens of the phase that counted in earlier calls."""

    def some(self, which: Indices, start: int = 0, most: int = _MOST_TOKENS) -> _Counted:
        """Of some lanes the tokens from their `start`-th on, `most` at most."""
        if len(which) == len(self.rows):  # a token of each
            return self
        lengths = np.minimum(self.lengths[which] - start, most)
        index = spread(self.firsts[which] + start, lengths)
        return _Counted(
            self.lanes[which],
            self.slots[which],
            np.cumsum(lengths) - lengths,
            lengths,
            self.rows[index],
            self.positions[index],
            self.before[which] + start,
        )

    def parts(self) -> Iterator[_Counted]:
        """Lanes that go through a step together: those of one token, then those of about one length.

        Of the latter all stand at the same place of a moving average's chunk.
        """
        single = self.lengths == 1
        if single.any():
            yield self.some(np.flatnonzero(single))
        many = np.flatnonzero(~single)
        group: list[int] = []
        longest, place = 0, self.before % CHUNK
        for lane in many[np.lexsort((-self.lengths[many], place[many]))].tolist():
            alike = group and place[lane] == place[group[0]] and 2 * self.lengths[lane] > longest
            if not (alike and (len(group) + 1) * longest <= _MOST_TOKENS):
                yield from self._pieces(group)
                group, longest = [], int(self.lengths[lane])
            group.append(lane)
        yield from self._pieces(group)

    def _pieces(self, group: list[int]) -> Iterator[_Counted]:
        """A group's tokens; of a long lane, which is alone, so many at a time."""
        if group:
            which = np.asarray(group, np.intp)
            for start in range(0, int(self.lengths[which].max()), _MOST_TOKENS):
                yield self.some(which, start)


class Rules:
    """`monitor.records.Observer` for all requests of one policy set. Thread-safe."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._table = Table(program)
        self._store = EvidenceStore(program, self._table)
        self._requests: dict[int, weakref.ref[RequestRules]] = {}
        self._gone: deque[int] = deque()
        """Slots whose requests nobody holds any more; a request may end anywhere, so its row is given back later."""
        self._special: dict[frozenset[int], NDArray[np.bool_]] = {}
        self._lock = threading.Lock()

    def take(self, request: RequestRules) -> int:
        """A slot for a request, which is its own as long as anybody holds it."""
        with self._lock:
            while self._gone:
                self._leave(self._gone.popleft())
            slot = self._table.take()
            gone = self._gone
            self._requests[slot] = weakref.ref(request, lambda _: gone.append(slot))
            if request.special not in self._special:
                self._special[request.special] = _lookup(request.special)
            self._table.special[slot] = list(self._special).index(request.special)
            self._table.session[slot] = request.session is not None
            applying = request.applying
            self._table.rules[slot], self._table.checks[slot] = applying.rules, applying.checks
            return slot

    def reach(self, request: RequestRules) -> tuple[int, int, list[Reach]]:
        """How many tokens of a request were shown, how many counted, and how far its checks have come in its phase."""
        table, slot = self._table, request.slot
        with self._lock:
            shown, judged, phase = int(table.shown[slot]), int(table.judged[slot]), int(table.phase[slot])
            now = [self._reach(slot, phase)] if phase != NO_PHASE else []
        return shown, judged, now

    def in_force(self, request: RequestRules) -> tuple[tuple[Clamp, ...], tuple[str, ...]]:
        """Clamps of a request's policies now, and the names of those that clamp."""
        return suppression.in_force(self.program, request.applying.policies, self._table.left[request.slot])

    def observe_batch(self, blocks: Blocks) -> dict[int, Decision]:
        """Score the blocks of a pass. A rule that crashes makes all that it may have touched unscored, never clean."""
        read = active(blocks.readings)
        unscored = self._unscored(blocks, read)
        try:
            decisions = self._scored(blocks, read, unscored)
        except Exception:  # noqa: BLE001  (a rule that crashes must not look clean or stop the engine)
            decisions = {}
            unscored = dict.fromkeys(range(len(blocks)), Failure.RULE_ERROR) | unscored
        for number, cause in unscored.items():
            decisions[number] = self._failed(int(blocks.slots[number]), cause)
        return decisions

    def _failed(self, slot: int, cause: Failure) -> Decision:
        """What a request's rules say where it was not scored; one that cannot take that in is withheld alone."""
        try:
            return self._request(slot).failed(cause)
        except Exception:  # noqa: BLE001  (the other requests of the call have no part in it)
            return Decision(action=Action.BLOCK, failure=cause)

    def _unscored(self, blocks: Blocks, read: Active) -> dict[int, Failure]:
        """Blocks that are at fault by themselves."""
        if len(blocks.readings) and blocks.readings.shape[1] != len(self.program.watch):
            return dict.fromkeys(range(len(blocks)), Failure.SHAPE) | dict(blocks.faults)
        # What is no number is not zero. The sum of numbers may overflow, so then all are looked at.
        with np.errstate(over="ignore", invalid="ignore"):
            finite = np.isfinite(read.values.sum())
        return dict(blocks.faults) if finite else blocks.unscored()

    def _scored(self, blocks: Blocks, read: Active, unscored: dict[int, Failure]) -> dict[int, Decision]:
        """Decisions of blocks for whose requests something is new; what cannot be scored is left out and noted."""
        kept = self._accept(blocks, unscored)
        news: dict[int, list[Detection]] = {}
        if len(kept.rows):
            scored = self.program.weights.scored(read)
            for part in kept.parts():
                _Advance(self, blocks, part, scored).run(news, unscored)
        decisions: dict[int, Decision] = {}
        for number, found in news.items():
            if number not in unscored:
                try:
                    decisions[number] = self._request(int(blocks.slots[number])).decision(tuple(found))
                except Exception:  # noqa: BLE001  (the other requests of the call were scored)
                    unscored[number] = Failure.RULE_ERROR
        return decisions

    def _accept(self, blocks: Blocks, unscored: dict[int, Failure]) -> _Counted:
        """Look at every block, once: what is wrong with it, and which of its tokens count."""
        table, slots = self._table, blocks.slots
        with self._lock:
            before, kinds = table.shown[slots], table.special[slots]
            table.shown[slots] = np.maximum(before, blocks.starts + blocks.counts)
            for number in np.flatnonzero(blocks.starts > before).tolist():
                if unscored.get(number) is not Failure.SHAPE and number not in blocks.faults:
                    unscored[number] = Failure.GAP
            begun = (table.phase[slots] != blocks.responses) & (blocks.counts > 0)
            begun[list(unscored)] = False
            if begun.any():
                self._begin(slots[begun], blocks.responses[begun].astype(np.int8))
            for number in np.flatnonzero(table.session[slots]).tolist():
                if number not in unscored:
                    try:
                        session = self._request(int(slots[number])).session
                        assert session is not None
                        session.show(
                            int(blocks.starts[number]), blocks.token_ids[blocks.rows(number)].tolist()
                        )
                    except Exception:  # noqa: BLE001  (the other requests of the call have no part in it)
                        unscored[number] = Failure.RULE_ERROR
            counted = table.counted(slots)
        return self._kept(blocks, unscored, (before, kinds, counted))

    def _kept(
        self,
        blocks: Blocks,
        unscored: dict[int, Failure],
        known: tuple[NDArray[np.int64], Indices, NDArray[np.int64]],
    ) -> _Counted:
        """Tokens of blocks that can be scored, special ones and attention sinks left out.

        `known` is, of every block's request, from which position on tokens are new, which ones are special, and how
        many counted before.
        """
        first, kinds, before = known
        lane = np.repeat(np.arange(len(blocks)), blocks.counts)
        rows, positions = blocks.in_order(blocks.firsts), blocks.in_order(blocks.starts)
        counted = (positions >= first[lane]) & blocks.ordinary()
        counted &= ~self._passed_over(blocks.token_ids[rows], kinds[lane])
        if not self.program.rules:
            counted[:] = False
        if unscored:
            counted[np.isin(lane, list(unscored))] = False
        lane = lane[counted]
        lengths = np.bincount(lane, minlength=len(blocks))
        own = np.flatnonzero(lengths)
        lengths = lengths[own]
        starts = np.cumsum(lengths) - lengths
        self._table.judged[blocks.slots[own]] += lengths
        return _Counted(
            own, blocks.slots[own], starts, lengths, rows[counted], positions[counted], before[own]
        )

    def _passed_over(self, token_ids: NDArray[np.int64], kinds: Indices) -> NDArray[np.bool_]:
        """`[tokens]` which are special to their requests."""
        out = np.zeros(len(token_ids), bool)
        for kind, lookup in enumerate(list(self._special.values())):
            own = lookup[np.minimum(token_ids, len(lookup) - 1)]
            if len(self._special) == 1:
                return own
            out |= own & (kinds == kind)
        return out

    def _begin(self, slots: Indices, phases: NDArray[np.int8]) -> None:
        """The next phase of some requests. The lock is held."""
        table = self._table
        again = table.phase[slots] != NO_PHASE
        for slot in slots[again].tolist():
            self._request(slot).past.append(self._reach(slot, int(table.phase[slot])))
        table.begin(slots, phases)
        self._store.begin(slots, again)

    def _reach(self, slot: int, phase: int) -> Reach:
        table = self._table
        return Reach.of(self.program, PHASES[phase], table.watching[slot], table.of(slot))

    def _leave(self, slot: int) -> None:
        self._requests.pop(slot)
        self._table.give(slot)

    def _request(self, slot: int) -> RequestRules:
        request = self._requests[slot]()
        if request is None:
            raise RuntimeError("blocks of a request that nobody holds; keep what `PolicySet.start` gave")
        return request


class _Advance:
    """One step of some lanes, from their readings to what is kept of them."""

    def __init__(self, rules: Rules, blocks: Blocks, part: _Counted, scored: ScoredRows) -> None:
        self._rules, self._part, self._program = rules, part, rules.program
        token_ids, scores = blocks.token_ids[part.rows], scored.scores[part.rows]
        self._tokens = Tokens(scored, part.rows, part.positions, token_ids, scores)
        alike = bool((part.lengths == part.lengths[0]).all())
        self._extent = Extent(part.before, None if alike else part.lengths)

    def run(self, news: dict[int, list[Detection]], unscored: dict[int, Failure]) -> None:
        """Advance the lanes. Adds to `news` what is new, by block, and to `unscored` what could not be said."""
        rules, part, scores = self._rules, self._part, self._padded()
        table, store = rules._table, rules._store
        with rules._lock:
            lanes, numbers = table.lanes(part.slots)
        taken = step(self._program, lanes, scores, self._extent, self._sessions())
        fired = np.asarray(taken.hits.any(axis=0)) if taken.hits.any() else np.zeros(lanes.armed.shape, bool)
        with rules._lock:
            for lane in np.flatnonzero(fired.any(axis=1)).tolist():
                try:
                    self._fire(lane, lanes, taken, news)
                except Exception:  # noqa: BLE001  (the others in the step were scored)
                    unscored[int(part.lanes[lane])] = Failure.RULE_ERROR
            settle(self._program, lanes, taken)
            self._hold(fired, taken, news)
            armed = lanes.armed & ~fired
            table.keep(part.slots, numbers, armed)
            store.add(self._tokens, scores, part.slots, part.firsts, self._wanted(lanes.reading, armed))

    def _wanted(self, reading: Bools, armed: Bools) -> Bools:
        """`[lanes, checks]` whose evidence anybody may still ask for: a rule's until it has fired."""
        wanted, simple = reading.copy(), self._program.simple
        wanted[:, : len(simple)] &= armed[:, simple]
        return wanted

    def _padded(self) -> Scores:
        """`[tokens, lanes, checks]`, 0 where a lane has no more tokens."""
        part, flat = self._part, self._tokens.scores
        lanes, longest = len(part.lengths), int(part.lengths.max())
        if longest == 1:
            return flat[None]
        if lanes == 1:
            return flat[:, None]
        scores = np.zeros((longest, lanes, flat.shape[1]))
        scores[
            spread(np.zeros_like(part.firsts), part.lengths), np.repeat(np.arange(lanes), part.lengths)
        ] = flat
        return scores

    def _sessions(self) -> list[InSession]:
        found, part, table = [], self._part, self._rules._table
        for lane in np.flatnonzero(table.session[part.slots]).tolist():
            session = self._rules._request(int(part.slots[lane])).session
            assert session is not None
            own, phase = self._own(lane), PHASES[int(table.phase[part.slots[lane]])]
            scored = self._tokens.scores[own][:, self._program.in_session]
            found.append(InSession(lane, *session.push(scored, self._tokens.positions[own], phase)))
        return found

    def _own(self, lane: int) -> Indices:
        """Which tokens of the step are a lane's."""
        first = int(self._part.firsts[lane])
        return np.arange(first, first + int(self._part.lengths[lane]))

    def _fire(self, lane: int, lanes: Lanes, taken: Step, news: dict[int, list[Detection]]) -> None:
        rules, slot = self._rules, int(self._part.slots[lane])
        request, phase = rules._request(slot), PHASES[int(rules._table.phase[slot])]
        firing = Firing(
            self._program,
            lanes,
            taken,
            lane,
            self._tokens,
            self._own(lane),
            slot,
            rules._store,
            phase,
            request.token_text,
        )
        hits = taken.hits[:, lane]
        which = np.flatnonzero(hits.any(axis=0)).tolist()
        found = tuple(firing.detection(rule, int(hits[:, rule].argmax())) for rule in which)
        request.fired(which, found)
        news.setdefault(int(self._part.lanes[lane]), []).extend(found)

    def _hold(self, fired: Bools, taken: Step, news: dict[int, list[Detection]]) -> None:
        """Clamps that begin or end."""
        table, slots = self._rules._table, self._part.slots
        if not self._program.holders:
            return
        left = table.left[slots]
        changed = suppression.hold(self._program, left, fired, taken, table.watching[slots], self._extent)
        table.left[slots] = left
        for lane in np.flatnonzero(changed).tolist():
            news.setdefault(int(self._part.lanes[lane]), [])


def _lookup(special: frozenset[int]) -> NDArray[np.bool_]:
    """True at special token ids; its last entry stands for all ids beyond."""
    lookup = np.zeros(max(special, default=-1) + 2, bool)
    lookup[list(special)] = True
    return lookup


def _shortfall(coverage: Coverage, shown: int, *, ruled: bool) -> Failure | None:
    """What of a request's tokens was not scored, after so many were shown to the rules; `ruled` where there are any."""
    if not coverage.complete:
        return Failure.INCOMPLETE
    if coverage.tokens_run == 0:
        return Failure.NOT_RUN
    if coverage.tokens_scored > shown:
        return Failure.MISCOUNTED
    return Failure.NOT_JUDGED if ruled and not coverage.tokens_judged else None
