"""How far each rule came on a text, and which tokens and features brought it there.

Knows resolved policies and readings. Does not know models or how an explanation is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from monitor.policy.policy import Policy, Rule
from monitor.policy.pooling import PoolBank
from monitor.policy.program import compile_program
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
class Explanation:
    """One rule on one text, fired or not."""

    policy: Policy
    rule: Rule
    score: float
    """The highest pooled score; minus infinity where the text was too short for the rule's `for`."""
    fired: bool
    tokens: tuple[TokenShare, ...]
    """The tokens with the highest scores above zero, strongest first."""


def explain(policies: Sequence[Policy], readings: Readings, phase: Phase) -> tuple[Explanation, ...]:
    """Every rule that looks at `phase`, nearest to its threshold first.

    `readings` `[tokens, watched]` are of a whole text, columns in the order of the policies' watch plan.
    """
    program = compile_program(policies)
    scores = readings[1:].astype(np.float64) @ program.weights
    found = []
    for i, (policy, rule) in enumerate(zip(program.owners, program.rules, strict=True)):
        if phase in rule.phases:
            pooled = PoolBank([rule.pooling], [rule.hold]).push(scores[:, [i]])
            best = float(pooled.max()) if len(pooled) else -np.inf
            tokens = tuple(
                _share(int(t), float(scores[t, i]), readings, program.weights[:, i], program.watch.features)
                for t in np.argsort(-scores[:, i], kind="stable")[:TOKENS]
                if scores[t, i] > 0
            )
            found.append(Explanation(policy, rule, best, best >= rule.threshold, tokens))
    return tuple(sorted(found, key=lambda e: e.rule.threshold - e.score))


def _share(
    t: int, score: float, readings: Readings, weights: np.ndarray, features: tuple[int, ...]
) -> TokenShare:
    row = readings[t + 1]
    parts = row * weights
    best = [i for i in np.argsort(-parts, kind="stable")[:FEATURES] if parts[i] > 0]
    return TokenShare(t + 1, score, tuple(FeatureReading(features[i], float(row[i])) for i in best))
