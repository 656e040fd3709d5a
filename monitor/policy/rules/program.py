"""The compiled form of a policy set: all its rules as arrays, so that one product scores tokens for every rule.

A check is what is read, pooled and compared: every rule with a score of its own, then every named condition. Nothing
here belongs to a request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.policy.policy import Check, Condition, Policy, Rule
from monitor.policy.rules.gates import Gates, Signed
from monitor.policy.rules.pooling import Pools
from monitor.policy.rules.weights import Weights
from monitor.policy.schema.expression import names_in
from monitor.records import Action, Clamp, Phase, Probe, WatchPlan

Indices = NDArray[np.intp]


class Thresholds:
    """`[checks]` where no check looks at lengths, `[tokens, lanes, checks]` otherwise."""

    def __init__(self, checks: Sequence[Check]) -> None:
        self.fixed = np.asarray([check.threshold for check in checks], np.float64)
        """`[checks]`: those without a limit of length."""
        limits = {up_to for check in checks for up_to, _ in check.lengths if up_to is not None}
        self._edges = np.asarray(sorted(limits), np.int64)
        self._table = np.tile(self.fixed, (len(self._edges) + 1, 1))
        for i, check in enumerate(checks):
            if check.lengths:
                self._table[:, i] = [_at(check, int(edge)) for edge in self._edges] + [check.lengths[-1][1]]
        self.vary = any(check.lengths for check in checks)
        """True where a threshold depends on the length."""

    def at(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """Thresholds `[…, checks]` at the n-th tokens `[…, 1 or checks]` of a phase, counted from 1."""
        if not self.vary:
            return self.fixed
        bucket = np.searchsorted(self._edges, tokens)
        if tokens.shape[-1] == 1:
            return np.asarray(self._table[bucket[..., 0]])
        return np.asarray(self._table[bucket, np.arange(len(self.fixed))])


@dataclass(frozen=True, eq=False)
class Holder:
    """A policy whose clamps begin once one of its rules has fired."""

    policy: Policy
    rules: Indices
    """Its enforced rules with action `suppress`, as numbers in the program."""


@dataclass(frozen=True, eq=False)
class Program:
    """The compiled form of a policy set."""

    policies: tuple[Policy, ...]
    watch: WatchPlan
    rules: tuple[Rule, ...]
    owners: tuple[Policy, ...]
    """The policy of each rule."""
    checks: tuple[Check, ...]
    makers: tuple[Policy, ...]
    """The policy of each check."""
    simple: Indices
    """Rules with a score of their own; the n-th has the n-th check."""
    combined: Indices
    """Rules that combine conditions; the n-th has the n-th output of `gates`."""
    leaves: Indices
    """Checks of conditions; the n-th is the n-th node of `gates`."""
    gates: Gates
    parts: tuple[tuple[int, ...], ...]
    """Which leaves each combined rule rests on, as positions in `leaves`."""
    weights: Weights
    thresholds: Thresholds
    pools: Pools
    lasting: NDArray[np.float64]
    """`[leaves]`: tokens for which each holds once reached, infinite where to the end of the request."""
    held: Indices
    """`[combined]`: tokens in a row for which each must hold before it fires."""
    in_session: Indices
    """Checks that are pooled over a session."""
    holders: tuple[Holder, ...]
    """The policies that clamp from a detection on."""
    closed: bool
    """True where a policy that acts says `on_error: closed`."""

    def watches(self, phase: Phase) -> NDArray[np.bool_]:
        """`[rules]`: which rules look at this phase."""
        return np.asarray([phase in rule.phases for rule in self.rules], bool)

    def reads(self, phase: Phase) -> NDArray[np.bool_]:
        """`[checks]`: which checks look at this phase."""
        return np.asarray([phase in check.phases for check in self.checks], bool)


def compile_program(policies: Sequence[Policy]) -> Program:
    """Arrays for all rules; the watch plan names each column once, features in ascending order."""
    watch = watch_plan(policies)
    pairs = [(policy, rule) for policy in policies for rule in policy.rules]
    simple = [i for i, (_, rule) in enumerate(pairs) if rule.when is None]
    own: list[tuple[Policy, Check]] = [pairs[i] for i in simple]
    leaves = [(policy, c) for policy in policies for c in policy.conditions if c.when is None]
    checks: list[Check] = [check for _, check in own]
    checks += [condition for _, condition in leaves]
    gates, parts = _combine(policies, leaves)
    return Program(
        policies=tuple(policies),
        watch=watch,
        rules=tuple(rule for _, rule in pairs),
        owners=tuple(policy for policy, _ in pairs),
        checks=tuple(checks),
        makers=(*(policy for policy, _ in own), *(policy for policy, _ in leaves)),
        simple=np.asarray(simple, np.intp),
        combined=np.asarray([i for i, (_, rule) in enumerate(pairs) if rule.when is not None], np.intp),
        leaves=np.arange(len(own), len(checks)),
        gates=gates,
        parts=parts,
        weights=Weights(watch, checks),
        thresholds=Thresholds(checks),
        pools=Pools([check.pooling for check in checks], [check.hold for check in checks]),
        lasting=np.asarray([np.inf if c.lasts is None else c.lasts for _, c in leaves], np.float64),
        held=np.asarray([rule.hold for _, rule in pairs if rule.when is not None], np.intp),
        in_session=np.flatnonzero([check.session for check in checks]).astype(np.intp),
        holders=_holders(policies, pairs),
        closed=any(policy.closed and policy.enforced for policy in policies),
    )


def _holders(policies: Sequence[Policy], pairs: Sequence[tuple[Policy, Rule]]) -> tuple[Holder, ...]:
    found = []
    for policy in policies:
        if policy.clamps and policy.enforced and not policy.clamps_always:
            mine = [i for i, (owner, rule) in enumerate(pairs) if owner is policy and _suppresses(rule)]
            found += [Holder(policy, np.asarray(mine, np.intp))] if mine else []
    return tuple(found)


def _suppresses(rule: Rule) -> bool:
    return rule.enforced and rule.action is Action.SUPPRESS


def watch_plan(policies: Sequence[Policy]) -> WatchPlan:
    """What rules read or policies clamp: features ascending, probes by policy, signals."""
    checks: list[Check] = []
    for policy in policies:
        checks += [*policy.rules, *policy.conditions]
    named = {feature.index for check in checks for feature in (*check.features, *check.explains)}
    named |= {clamp.feature for p in policies for clamp in p.clamps}
    probes: dict[str, Probe] = {check.probe.name: check.probe for check in checks if check.probe is not None}
    signals = {check.signal for check in checks if check.signal is not None}
    return WatchPlan(tuple(sorted(named)), tuple(probes.values()), tuple(sorted(signals)))


def _combine(
    policies: Sequence[Policy], leaves: Sequence[tuple[Policy, Condition]]
) -> tuple[Gates, tuple[tuple[int, ...], ...]]:
    """The gates of all rules with `when`, and the leaves that each rests on."""
    gates = Gates(len(leaves))
    parts: list[tuple[int, ...]] = []
    numbers = {id(condition): n for n, (_, condition) in enumerate(leaves)}
    for policy in policies:
        nodes: dict[str, Signed] = {}
        below: dict[str, frozenset[int]] = {}
        for condition in in_order(policy.conditions):
            if condition.when is None:
                number = numbers[id(condition)]
                nodes[condition.name], below[condition.name] = (number, False), frozenset({number})
            else:
                nodes[condition.name] = gates.add(condition.when, nodes)
                below[condition.name] = frozenset().union(*(below[n] for n, _ in names_in(condition.when)))
        for rule in policy.rules:
            if rule.when is not None:
                gates.output(gates.add(rule.when, nodes))
                named = frozenset().union(*(below[n] for n, _ in names_in(rule.when)))
                parts.append(tuple(sorted(named)))
    return gates.close(), tuple(parts)


def in_order(conditions: Sequence[Condition]) -> list[Condition]:
    """Every condition after those that it names; they are known not to go round in a circle."""
    by_name = {condition.name: condition for condition in conditions}
    done: dict[str, Condition] = {}

    def visit(condition: Condition) -> None:
        if condition.when is not None and condition.name not in done:
            for name, _ in names_in(condition.when):
                visit(by_name[name])
        done.setdefault(condition.name, condition)

    for condition in conditions:
        visit(condition)
    return list(done.values())


def merge_clamps(clamps: Sequence[Clamp]) -> tuple[Clamp, ...]:
    """One clamp per feature: the lowest target asked for, everywhere where one policy asks for everywhere."""
    merged: dict[int, Clamp] = {}
    for clamp in clamps:
        merged[clamp.feature] = clamp.strengthened(merged.get(clamp.feature))
    return tuple(merged[feature] for feature in sorted(merged))


def strongest(rules: Sequence[Rule]) -> Action:
    """The strongest action that enforced rules ask for."""
    return max((rule.action for rule in rules if rule.enforced), default=Action.ALLOW)


def _at(check: Check, tokens: int) -> float:
    return next(value for up_to, value in check.lengths if up_to is None or tokens <= up_to)
