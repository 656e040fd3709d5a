"""The policies that are in force together.

Knows their digest, the features to watch and how a request is begun. Does not know files (`loader`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from monitor.policy.policy import Policy
from monitor.policy.rules.observer import Applying, RequestRules, Rules
from monitor.policy.rules.program import compile_program
from monitor.policy.rules.sessions import SessionPools, SessionStore
from monitor.records import ErrorTerm, SuppressionNeeds, SuppressionPlan, TokenText, WatchPlan


class PolicySet:
    """Resolved policies; immutable, so requests in flight finish on the set that they began with."""

    def __init__(
        self, policies: tuple[Policy, ...], digest: str, *, sessions: SessionStore | None = None
    ) -> None:
        self.policies = policies
        self.digest = digest
        """`sha256:` over the contents of every file that the set was read from."""
        self._program = compile_program(policies)
        self.rules = Rules(self._program)
        """What scores requests under this set."""
        self.sessions = SessionStore() if sessions is None else sessions
        """What is kept of conversations; given, it outlives the set."""
        self._bound = any(policy.match is not None for policy in policies)
        self._everything = self._select(policies)

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

    def start(
        self,
        token_text: TokenText,
        special: frozenset[int] = frozenset(),
        *,
        caller: str = "",
        labels: Mapping[str, str] | None = None,
        session: str = "",
    ) -> RequestRules:
        """Rules at their beginning, for one request. `special` are token ids that rules pass over.

        `caller` is the authenticated caller's name, `labels` and `session` are what the request says of itself;
        policies that are bound to others are left out. Without a session, checks with `scope: session` see this
        request alone.
        """
        program = self._program
        applying = self._applying(caller, labels or {})
        pools = None
        if session and applying.checks[program.in_session].any():
            which = program.in_session
            pools = SessionPools(
                self.sessions.open(caller, session),
                [program.makers[i] for i in which],
                [program.checks[i] for i in which],
            )
        return RequestRules(self.rules, applying, token_text, special, pools)

    def _applying(self, caller: str, labels: Mapping[str, str]) -> Applying:
        if not self._bound:
            return self._everything
        return self._select(
            tuple(p for p in self.policies if p.match is None or p.match.admits(caller, labels))
        )

    def _select(self, policies: tuple[Policy, ...]) -> Applying:
        mine = {id(policy) for policy in policies}
        rules = np.asarray([id(owner) in mine for owner in self._program.owners], bool)
        return Applying(
            policies, rules, np.asarray([id(maker) in mine for maker in self._program.makers], bool)
        )
