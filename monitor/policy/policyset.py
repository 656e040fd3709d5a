"""The policies that are in force together.

Knows their digest, the features to watch and how a request is begun. Does not know files (`loader`).
"""

from __future__ import annotations

from monitor.policy.observer import RequestObserver
from monitor.policy.policy import Policy
from monitor.policy.program import compile_program
from monitor.records import ErrorTerm, TokenText, WatchPlan
from monitor.suppression import SuppressionNeeds, SuppressionPlan


class PolicySet:
    """Resolved policies; immutable, so requests in flight finish on the set that they began with."""

    def __init__(self, policies: tuple[Policy, ...], digest: str) -> None:
        self.policies = policies
        self.digest = digest
        """`sha256:` over the contents of every file that the set was read from."""
        self._program = compile_program(policies)

    @property
    def watch(self) -> WatchPlan:
        """Features that rules read or policies clamp, in column order of the readings."""
        return self._program.watch

    @property
    def clampable(self) -> tuple[int, ...]:
        """Features that some policy clamps, ascending."""
        return tuple(sorted({clamp.feature for policy in self.policies for clamp in policy.clamps}))

    @property
    def suppression(self) -> SuppressionNeeds:
        """What suppression needs of a running model, and what it is checked with."""
        suppressing = [policy for policy in self.policies if policy.clamps and policy.enforced]
        return SuppressionNeeds(
            tuple(
                SuppressionPlan(policy.name, tuple(clamp.feature for clamp in policy.clamps), policy.later)
                for policy in suppressing
            ),
            any(clamp.error_term is ErrorTerm.DROP for policy in suppressing for clamp in policy.clamps),
        )

    @property
    def closed(self) -> bool:
        """True where a policy that acts blocks what could not be scored."""
        return self._program.closed

    def start(self, token_text: TokenText, special: frozenset[int] = frozenset()) -> RequestObserver:
        """Rules at their beginning, for one request. `special` are token ids that rules pass over."""
        return RequestObserver(self._program, token_text, special)
