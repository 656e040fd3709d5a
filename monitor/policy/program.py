"""All rules of a policy set as arrays, so that one product scores a block of tokens for every rule.

Knows weights `[watched, rules]`, thresholds and who asks for what. Holds nothing of any request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.policy.policy import Policy, Rule
from monitor.policy.pooling import PoolBank
from monitor.records import Action, Clamp, Phase, WatchPlan


@dataclass(frozen=True)
class Program:
    """The compiled form of a policy set: `scores = readings @ weights`."""

    policies: tuple[Policy, ...]
    watch: WatchPlan
    rules: tuple[Rule, ...]
    owners: tuple[Policy, ...]
    """The policy of each rule."""
    weights: NDArray[np.float64]
    """`[watched, rules]`"""
    thresholds: NDArray[np.float64]
    """`[rules]`"""
    closed: bool
    """True where a policy that acts says `on_error: closed`."""

    def pools(self) -> PoolBank:
        """Fresh pooling state for one phase of one request."""
        return PoolBank([rule.pooling for rule in self.rules], [rule.hold for rule in self.rules])

    def watches(self, phase: Phase) -> NDArray[np.bool_]:
        """`[rules]`: which rules look at this phase."""
        return np.asarray([phase in rule.phases for rule in self.rules], bool)

    def standing_clamps(self) -> tuple[Clamp, ...]:
        """Clamps that hold from the first token."""
        return merge_clamps([c for p in self.policies if p.clamps_always and p.enforced for c in p.clamps])


def compile_program(policies: Sequence[Policy]) -> Program:
    """Arrays for all rules; the watch plan names each feature once, in ascending order."""
    watch = WatchPlan(tuple(sorted(named_features(policies))))
    pairs = [(policy, rule) for policy in policies for rule in policy.rules]
    weights = np.zeros((len(watch), len(pairs)))
    for column, (_, rule) in enumerate(pairs):
        for feature in rule.features:
            weights[watch.column(feature.index), column] += feature.weight
    return Program(
        policies=tuple(policies),
        watch=watch,
        rules=tuple(rule for _, rule in pairs),
        owners=tuple(policy for policy, _ in pairs),
        weights=weights,
        thresholds=np.asarray([rule.threshold for _, rule in pairs], np.float64),
        closed=any(policy.closed and policy.enforced for policy in policies),
    )


def named_features(policies: Sequence[Policy]) -> set[int]:
    """Features that rules read or policies clamp."""
    read = {feature.index for p in policies for rule in p.rules for feature in rule.features}
    return read | {clamp.feature for p in policies for clamp in p.clamps}


def merge_clamps(clamps: Sequence[Clamp]) -> tuple[Clamp, ...]:
    """One clamp per feature: the lowest target asked for, everywhere where one policy asks for everywhere."""
    merged: dict[int, Clamp] = {}
    for clamp in clamps:
        merged[clamp.feature] = clamp.strengthened(merged.get(clamp.feature))
    return tuple(merged[feature] for feature in sorted(merged))


def strongest(rules: Sequence[Rule]) -> Action:
    """The strongest action that enforced rules ask for."""
    return max((rule.action for rule in rules if rule.enforced), default=Action.ALLOW)
