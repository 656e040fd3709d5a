"""Blocks of many requests scored together: one sparse product, and pooled state `[requests, checks]`.

Knows observers of one policy set and their lanes in a shared table. Does not know engines: whoever has the blocks of
a pass calls `ahead` with them, and then every observer's `observe` as if nothing had happened. What comes out is the
same to the last bit.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from monitor.policy.rules.accepting import Accepted
from monitor.policy.rules.detect import Member, Outcome, advance
from monitor.policy.rules.evidence import Tokens
from monitor.policy.rules.program import Program
from monitor.policy.rules.state import PhaseState, blank
from monitor.policy.rules.weights import active
from monitor.records import TokenBlock

if TYPE_CHECKING:
    from monitor.policy.rules.observer import RequestObserver

FIRST = 8
"""Lanes of a new table; doubled when they do not suffice."""
RULE_ERROR = "rule_error"


class RuleBatch:
    """The shared table of one policy set. Thread-safe."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._lock = threading.RLock()
        self._table = blank(program, FIRST)
        self._holders: list[weakref.ref[PhaseState] | None] = [None] * FIRST

    def ahead(self, work: Sequence[tuple[RequestObserver, TokenBlock]]) -> None:
        """Score one block of each of several requests of this set.

        Blocks with one token that counts go together, longer ones one after the other. A rule that crashes makes
        the requests that it took down unscored, never clean.
        """
        together: list[tuple[RequestObserver, Accepted]] = []
        with self._lock:
            for observer, block in work:
                accepted = _accepted(observer, block)
                if accepted.kept is not None and len(accepted.kept) == 1:
                    together.append((observer, accepted))
                else:
                    observer.went_ahead(*_guarded(observer, accepted))
            try:
                self._together(together)
            except Exception:  # noqa: BLE001  (a rule that crashes must not look clean or stop the engine)
                for observer, accepted in together:
                    observer.went_ahead(accepted.failing(RULE_ERROR), Outcome())

    def leave(self, state: PhaseState) -> None:
        """A request has ended, or its phase: its state lives on its own from now on."""
        with self._lock:
            if state.table is self._table:
                self._holders[state.lane] = None
                state.leave()

    def _together(self, work: Sequence[tuple[RequestObserver, Accepted]]) -> None:
        if not work:
            return
        states = [observer.state(accepted.block.phase) for observer, accepted in work]
        self._line_up(states)
        order = sorted(range(len(work)), key=lambda i: states[i].lane)
        found = active(np.concatenate([work[i][1].readings for i in order]))
        scores = self._program.weights.scores(found, len(order))
        members: list[Member] = []
        for row, i in enumerate(order):
            observer, accepted = work[i]
            tokens = Tokens(accepted.positions, accepted.token_ids, found, row)
            members.append(observer.member(accepted.block.phase, tokens))
        outcomes = advance(self._program, self._table, slice(0, len(order)), members, scores[None])
        for i, outcome in zip(order, outcomes, strict=True):
            observer, accepted = work[i]
            observer.went_ahead(accepted, outcome)

    def _line_up(self, states: Sequence[PhaseState]) -> None:
        """Give these states the first lanes, moving as few as possible."""
        while len(states) > len(self._holders):
            self._grow()
        mine = {id(state) for state in states}
        outside = [s for s in states if s.table is not self._table or s.lane >= len(states)]
        for lane in range(len(states)):
            holder = self._holder(lane)
            if holder is None or id(holder) not in mine:
                self._put(outside.pop(), lane)

    def _put(self, state: PhaseState, lane: int) -> None:
        """Move a state to a lane; whoever lives there goes where the state came from."""
        holder = self._holder(lane)
        if holder is not None:
            holder.leave()
        if state.table is self._table:
            self._holders[state.lane] = None
        state.move(self._table, lane)
        self._holders[lane] = weakref.ref(state)

    def _holder(self, lane: int) -> PhaseState | None:
        reference = self._holders[lane]
        return None if reference is None else reference()

    def _grow(self) -> None:
        more = blank(self._program, 2 * len(self._holders))
        for lane in range(len(self._holders)):
            holder = self._holder(lane)
            if holder is not None:
                holder.move(more, lane)
        self._table = more
        self._holders += [None] * len(self._holders)


def _accepted(observer: RequestObserver, block: TokenBlock) -> Accepted:
    try:
        return observer.accept(block)
    except Exception:  # noqa: BLE001  (as above)
        return Accepted(block, RULE_ERROR)


def _guarded(observer: RequestObserver, accepted: Accepted) -> tuple[Accepted, Outcome]:
    try:
        return accepted, observer.score(accepted)
    except Exception:  # noqa: BLE001  (as above)
        return accepted.failing(RULE_ERROR), Outcome()
