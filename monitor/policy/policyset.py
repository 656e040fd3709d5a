"""`PolicySet`: all policies of a server. It says what to read and to clamp, and makes the observer of a request."""

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
        self,
        policies: tuple[Policy, ...],
        digest: str,
        *,
        sessions: SessionStore | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.policies = policies
        self.digest = digest
        """`sha256:` over the contents of every file that the set was read from."""
        self.notes = notes
        """What whoever runs the set must know of it, such as texts for which no rate of false positives is promised."""
        self._program = compile_program(policies)
        self.rules = Rules(self._program)
        """What scores requests under this set."""
        self.sessions = SessionStore() if sessions is None else sessions
        """Scores of conversations. A reload hands the store of the old set to the new one."""
        self._bound = any(policy.match is not None for policy in policies)
        self._everything = self._select(policies)

    @property
    def watch(self) -> WatchPlan:
        """What rules read and policies clamp, in the order of the columns of the readings."""
        return self._program.watch

    @property
    def clampable(self) -> tuple[int, ...]:
        """Indices of the features that some policy clamps, ascending."""
        return tuple(sorted({clamp.feature for policy in self.policies for clamp in policy.clamps}))

    @property
    def suppression(self) -> SuppressionNeeds:
        """What suppression needs of the running model, and the probes by which it is checked."""
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
        """True where an enforced policy blocks requests that could not be scored."""
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
        """The rules of one request, before its first token.

        `special` are ids of tokens that rules pass over. `caller` is the authenticated caller's name; `labels` and
        `session` are what the request says of itself. Policies that do not apply to the request are left out. Without a
        session, rules with `scope: session` see this request alone.
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

    def applying(self, caller: str, labels: Mapping[str, str]) -> frozenset[str]:
        """Names of the policies that apply to a request of this caller with these labels."""
        return frozenset(policy.name for policy in self._applying(caller, labels).policies)

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
