"""Which policies clamp at the moment: from the first token, from a detection on, until the score has been low for long.

Knows rules that suppress, pooled scores and tokens. Does not know features, evidence or engines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.policy.policy import Policy
from monitor.policy.rules.detect import Outcome
from monitor.policy.rules.program import Program, merge_clamps
from monitor.records import Action, Clamp


@dataclass
class _Holder:
    """A policy that suppresses once it has detected something."""

    policy: Policy
    rules: NDArray[np.intp]
    """Its enforced rules with action `suppress`, as numbers in the program."""
    left: float = 0
    """Tokens for which its clamps still hold; infinite where to the end."""

    def walk(self, hold: int, reached: NDArray[np.bool_], kept: NDArray[np.bool_]) -> None:
        """Tokens in order `[tokens]`: where a rule is at its threshold, and where one is at its release level."""
        for starts, stays in zip(reached.tolist(), kept.tolist(), strict=True):
            if starts or (stays and self.left > 0):
                self.left = hold
            elif self.left > 0:
                self.left -= 1


class Holding:
    """The clamps of policies in one request."""

    def __init__(self, program: Program, policies: Sequence[Policy]) -> None:
        self._program = program
        acting = [policy for policy in policies if policy.clamps and policy.enforced]
        self._standing = [policy for policy in acting if policy.clamps_always]
        self._holders = [
            _Holder(policy, found)
            for policy in acting
            if not policy.clamps_always and len(found := suppressing_rules(program, policy))
        ]
        self.names: tuple[str, ...] = ()
        """Of the policies whose clamps are in force."""
        self.clamps: tuple[Clamp, ...] = ()
        self._settle()

    def take(self, outcome: Outcome, watching: NDArray[np.bool_]) -> None:
        """What a step made of this request. `watching` `[rules]` looks at the phase."""
        changed = False
        for holder in self._holders:
            before = holder.left > 0
            if holder.policy.hold is None:
                if not before and any(rule in holder.rules for rule in outcome.new):
                    holder.left = np.inf
            elif outcome.pooled is not None:
                mine = holder.rules[watching[holder.rules]]
                holder.walk(holder.policy.hold, *self._levels(holder.policy, mine, outcome))
            changed |= before != (holder.left > 0)
        if changed:
            self._settle()

    def _levels(
        self, policy: Policy, rules: NDArray[np.intp], outcome: Outcome
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """`[tokens]` each: some rule is at its threshold, some rule is at its release level."""
        assert outcome.pooled is not None
        assert outcome.thresholds is not None
        program, count = self._program, len(outcome.pooled)
        reached, kept = np.zeros(count, bool), np.zeros(count, bool)
        for rule in rules.tolist():
            if program.rules[rule].when is not None:
                assert outcome.stands is not None
                stands = outcome.stands[:, int(np.searchsorted(program.combined, rule))]
                reached |= stands
                kept |= stands
                continue
            check = int(np.searchsorted(program.simple, rule))
            scores, limit = outcome.pooled[:, check], outcome.thresholds[..., check]
            reached |= scores >= limit
            # Half of a threshold below zero would lie above it.
            kept |= scores >= np.where(limit > 0, policy.release_below * limit, limit)
        return reached, kept

    def _settle(self) -> None:
        acting = [*self._standing, *(holder.policy for holder in self._holders if holder.left > 0)]
        self.names = tuple(policy.name for policy in acting)
        self.clamps = merge_clamps([clamp for policy in acting for clamp in policy.clamps])


def suppressing_rules(program: Program, policy: Policy) -> NDArray[np.intp]:
    """A policy's enforced rules with action `suppress`, as numbers in the program."""
    return np.asarray(
        [
            i
            for i, (owner, rule) in enumerate(zip(program.owners, program.rules, strict=True))
            if owner is policy and rule.enforced and rule.action is Action.SUPPRESS
        ],
        np.intp,
    )
