"""Explanations: how far each rule came on a text, and which tokens and features brought it there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from monitor.policy.policy import Policy, Rule
from monitor.policy.rules.pooling import Extent
from monitor.policy.rules.program import Program, compile_program
from monitor.policy.rules.state import blank
from monitor.policy.rules.step import Lanes, Step, nearest, step
from monitor.policy.rules.weights import active
from monitor.records import FeatureReading, Phase, Readings

TOKENS = 5
FEATURES = 3


@dataclass(frozen=True, slots=True)
class TokenShare:
    """A token's score, and the features that gave most of it."""

    position: int
    score: float
    features: tuple[FeatureReading, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """A sub-condition of a rule."""

    name: str
    score: float
    """The pooled score nearest to its threshold; minus infinity where no token counted."""
    threshold: float
    reached: bool
    """Whether it was reached at any token."""
    tokens: tuple[TokenShare, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """One rule on one text, fired or not."""

    policy: Policy
    rule: Rule
    score: float
    """The pooled score nearest to its threshold, the highest where that does not depend on the length; minus infinity
    where the text was too short for the rule's `for`. Of a rule with `when`: how far the deciding condition is beyond
    its threshold."""
    threshold: float
    fired: bool
    tokens: tuple[TokenShare, ...]
    """The tokens with the highest scores above zero, strongest first; of a rule with `when` they are in `parts`."""
    parts: tuple[Part, ...] = ()


def explain(policies: Sequence[Policy], readings: Readings, phase: Phase) -> tuple[Explanation, ...]:
    """Every rule that looks at `phase`, nearest to its threshold first.

    `readings` `[tokens, watched]` are of a whole text, columns in the order of the policies' watch plan. Policies that
    are bound to callers or labels are explained like all others.
    """
    text = _Text(compile_program(policies), readings, phase)
    found = [text.rule(i) for i, rule in enumerate(text.program.rules) if phase in rule.phases]
    return tuple(sorted(found, key=lambda e: e.threshold - e.score))


class _Text:
    """A text that all rules have read."""

    def __init__(self, program: Program, readings: Readings, phase: Phase) -> None:
        self.program = program
        self._scored = program.weights.scored(active(readings[1:]))
        self._count = len(self._scored.scores)
        self._lanes = Lanes(blank(program, 1), program.watches(phase)[None], program.reads(phase)[None])
        self._taken = self._step() if self._count else None

    def rule(self, i: int) -> Explanation:
        """The explanation of the i-th rule."""
        program, rule = self.program, self.program.rules[i]
        fired = self._taken is not None and bool(self._taken.hits[:, 0, i].any())
        if rule.when is None:
            check = int(np.searchsorted(program.simple, i))
            score, threshold = self._nearest(check)
            return Explanation(program.owners[i], rule, score, threshold, fired, self._shares(check))
        n = int(np.searchsorted(program.combined, i))
        leaves = [self._nearest(int(check)) for check in program.leaves]
        margin = program.gates.margins([score - limit for score, limit in leaves])[n]
        parts = tuple(self._part(leaf, leaves[leaf]) for leaf in program.parts[n])
        return Explanation(program.owners[i], rule, margin, 0.0, fired, (), parts)

    def _part(self, leaf: int, came: tuple[float, float]) -> Part:
        check = int(self.program.leaves[leaf])
        reached = bool(np.isfinite(came[0]) and came[0] >= came[1])
        return Part(self.program.checks[check].name, *came, reached, self._shares(check))

    def _nearest(self, check: int) -> tuple[float, float]:
        if self._taken is None:
            return -np.inf, float(self.program.thresholds.fixed[check])
        return nearest(self.program, self._lanes, self._taken, 0, check, self._count)

    def _step(self) -> Step:
        return step(self.program, self._lanes, self._scored.scores[:, None], Extent(np.zeros(1, np.int64)))

    def _shares(self, check: int) -> tuple[TokenShare, ...]:
        scores = self._scored.scores[:, check]
        best = np.argsort(-scores, kind="stable")[:TOKENS]
        best = best[scores[best] > 0]
        named: list[list[FeatureReading]] = [[] for _ in best]
        found = self.program.weights.strongest(self._scored, best, np.full(len(best), check), FEATURES)
        for n, _, column, reading in zip(*(array.tolist() for array in found), strict=True):
            named[n].append(FeatureReading(self.program.watch.features[column], reading))
        return tuple(
            TokenShare(int(t) + 1, float(scores[t]), tuple(own)) for t, own in zip(best, named, strict=True)
        )
