"""Taking response tokens back: which, and what the rules knew before them.

A rule of a policy with `suppress.rewind: N` that fires in the response takes its last N tokens back; they are written
again under the clamps. The rules then forget what those tokens read, as if they had never been written, but not that
they fired: a rule fires once per phase, so each rewinds once at most. In the prompt nothing is taken back; the prompt
is run again, so that the cache of later layers is clamped as well.

Knows states of the response by position. Does not know engines or clamps. Pools with `scope: session` keep what was
taken back: other requests may have added to them since.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from monitor.policy.policy import Policy
from monitor.policy.rules.program import Program
from monitor.policy.rules.state import PhaseState, Saved
from monitor.policy.rules.suppression import suppressing_rules
from monitor.records import Phase


class Rewinding:
    """One request's way back."""

    def __init__(self, program: Program, policies: Sequence[Policy]) -> None:
        self._tokens = {
            int(rule): policy.rewind
            for policy in policies
            if policy.rewind and policy.clamps
            for rule in suppressing_rules(program, policy)
        }
        self._looking = {i for i in self._tokens if Phase.RESPONSE in program.rules[i].phases}
        self._past: deque[tuple[int, Saved]] = deque()
        self.forgotten = 0
        """Response tokens that were taken back so far."""

    @property
    def lag(self) -> int:
        """Response tokens that must be held back as long as some rule may take them back."""
        return max((self._tokens[i] for i in self._looking), default=0)

    def note(self, position: int, state: PhaseState) -> None:
        """Keep the response's state before the token at a position."""
        if not self._looking:
            self._past.clear()
            return
        self._past.append((position, state.save()))
        while len(self._past) > self.lag:
            self._past.popleft()

    def due(self, new: Sequence[int], phase: Phase, end: int) -> int | None:
        """From which position tokens are taken back, after these rules fired at tokens before `end`; None: not."""
        asked = [self._tokens[rule] for rule in new if rule in self._tokens]
        if not asked:
            return None
        if phase is Phase.PROMPT:
            return end
        self._looking -= set(new)
        return min((position for position, _ in self._past if position >= end - max(asked)), default=end)

    def restore(self, position: int, end: int, state: PhaseState) -> None:
        """Put the response's state back to what it was before a position."""
        while self._past and self._past[-1][0] > position:
            self._past.pop()
        if self._past and self._past[-1][0] == position:
            state.restore(self._past.pop()[1])
            self.forgotten += end - position
