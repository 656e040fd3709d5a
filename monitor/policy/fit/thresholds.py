"""Thresholds that a stated share of benign texts reaches.

Knows rules, detectors and benign readings. Thresholds of learnt detectors come from cross-validated scores, so that
no benign text sets a threshold for a detector that learnt from it; rules on pinned features, which learn
nothing, are calibrated on the benign texts as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monitor.policy.fit.crossing import Crossed, Recipe, Rows, scale_of, score
from monitor.policy.fit.measuring import threshold_at
from monitor.policy.fit.readings import Floats, TokenReadings
from monitor.policy.fit.weighing import Detector, Pooled
from monitor.policy.lock import LockedRule
from monitor.policy.schema import Pin, PolicyModel, Rate, RuleModel, TopKMean, pooling_of

LEAST_SHARE = 0.1
"""A threshold is at least this share of the median positive score, however quiet the benign texts are."""


@dataclass(frozen=True)
class Fitted:
    """What was learnt, and the held-out scores."""

    rows: Rows
    recipe: Recipe
    detector: Detector
    crossed: Crossed


def ways(policy: PolicyModel) -> tuple[Pooled, ...]:
    """How each rule pools; a policy without rules is learnt as if it had a plain one."""
    found = tuple(Pooled(pooling_of(rule.pooling), rule.for_) for rule in policy.rules)
    return found or (Pooled(TopKMean()),)


def lock_rules(policy: PolicyModel, fitted: Fitted | None, benign: TokenReadings) -> dict[str, LockedRule]:
    """Every rule with its threshold and the share of benign texts that reach it."""
    return {rule.name: _lock_rule(policy, i, rule, fitted, benign) for i, rule in enumerate(policy.rules)}


def _lock_rule(
    policy: PolicyModel, i: int, rule: RuleModel, fitted: Fitted | None, benign: TokenReadings
) -> LockedRule:
    pins = rule.features or policy.features
    if pins is None:
        assert fitted is not None
        scores, least = _crossed_scores(fitted, i)
    else:
        scores, least = _pinned_scores(pins, ways(policy)[i], benign), 0.0
    rate = rule.threshold.false_positive_rate if isinstance(rule.threshold, Rate) else None
    fixed = 0.0 if isinstance(rule.threshold, Rate) else rule.threshold
    threshold = fixed if rate is None else max(threshold_at(scores, rate), least)
    return LockedRule.model_validate(
        {
            "threshold": threshold,
            "pooling": pooling_of(rule.pooling),
            "for": rule.for_,
            "asked_rate": rate,
            "benign_rate": float((scores >= threshold).mean()),
            "benign_texts": len(scores),
        }
    )


def _crossed_scores(fitted: Fitted, i: int) -> tuple[Floats, float]:
    """Held-out benign scores in the units of the final detector, and the least threshold."""
    rows, how = fitted.rows, fitted.recipe.rules[i]
    everything = np.arange(len(rows.texts))
    middle, spread = scale_of(fitted.detector, how, rows, everything)
    benign = (rows.own == 0) & (rows.measured == 1)
    positive = np.flatnonzero((rows.own == 1) & (rows.positive == 1))
    least = LEAST_SHARE * float(np.median(score(fitted.detector, how, rows, positive)))
    return fitted.crossed.rules[i][benign] * spread + middle, max(least, 1e-6)


def _pinned_scores(pins: list[Pin], how: Pooled, benign: TokenReadings) -> Floats:
    columns = benign.columns(np.asarray([pin.index for pin in pins], np.intp))
    return how.score(columns, np.asarray([pin.weight for pin in pins]))
