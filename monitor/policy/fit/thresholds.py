"""Thresholds per length bucket that a stated share of benign texts reaches.

Knows what rules and conditions read, and benign readings. Thresholds of learnt detectors come from benign texts that
the detector did not learn from: those set aside for calibration, and cross-validated scores of the others. What
learns nothing (pinned features, pinned probes, anomaly signals) is calibrated on the benign texts as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from monitor.policy.files.lock import LockedRule
from monitor.policy.fit.cross_validation import scale_of
from monitor.policy.fit.detectors import Detector, Features, Rows, Signal
from monitor.policy.fit.learner import Recipe
from monitor.policy.fit.lengths import NEVER, Reached, calibrate, fires, stack
from monitor.policy.fit.readings import TextReadings
from monitor.policy.fit.weights import Pooled
from monitor.policy.schema.policy import CheckModel, Pin, PolicyModel, Rate, TopKMean, pooling_of
from monitor.policy.schema.threshold import buckets_of

LEAST_SHARE = 0.1
"""A threshold is at least this share of the median positive score, however quiet the benign texts are."""

Leaf = tuple[str, str]
"""Section of the lock (`rules`, `conditions`) and name."""


@dataclass(frozen=True)
class Fitted:
    """What was learnt, and the held-out scores."""

    rows: Rows
    recipe: Recipe
    detector: Detector
    crossed: list[Reached]
    """By way of pooling, held-out scores of the same kind of detector."""
    aside: TextReadings | None = None
    """Benign texts that the detector did not learn from."""


def learnt(policy: PolicyModel) -> dict[Leaf, CheckModel]:
    """The rules and conditions that read what the policy's concept teaches."""
    return {key: leaf for key, leaf in policy.leaves().items() if not leaf.own_columns}


def ways(policy: PolicyModel) -> tuple[Pooled, ...]:
    """How each of them pools; a policy without any is learnt as if it had a plain rule."""
    found = tuple(_way(leaf) for leaf in learnt(policy).values())
    return found or (Pooled(TopKMean()),)


def lock_leaves(
    policy: PolicyModel, fitted: Fitted | None, pinned: Detector | None, benign: list[TextReadings]
) -> dict[Leaf, LockedRule]:
    """Every rule and condition with its thresholds and the share of benign texts that reach them.

    `pinned` is what a policy without a concept names: features or a probe.
    """
    places = {key: place for place, key in enumerate(learnt(policy))}
    found = {}
    for key, leaf in policy.leaves().items():
        detector = _own(leaf) or pinned
        if detector is not None:
            found[key] = _calibrated(leaf, _as_they_are(detector, _way(leaf), benign), NEVER)
        else:
            assert fitted is not None
            scores, least = _held_out(fitted, places[key])
            found[key] = _calibrated(leaf, scores, least, _positives(fitted, places[key]))
    return found


def pinned_features(pins: Sequence[Pin]) -> Features:
    """Features as a policy names them."""
    indices = np.asarray([pin.index for pin in pins], np.intp)
    return Features(indices, np.asarray([pin.weight for pin in pins]), np.ones(len(pins)))


def _own(leaf: CheckModel) -> Detector | None:
    if leaf.features is not None:
        return pinned_features(leaf.features)
    return Signal(str(leaf.signal)) if leaf.signal is not None else None


def _way(leaf: CheckModel) -> Pooled:
    return Pooled(pooling_of(leaf.pooling), leaf.for_)


def _calibrated(
    leaf: CheckModel, scores: Reached, least: float, positives: Reached | None = None
) -> LockedRule:
    """The lock's entry; a threshold that stands in the policy is measured and not changed."""
    given = leaf.threshold
    assert given is not None
    if isinstance(given, Rate):
        pairs = [(b.up_to, b.threshold) for b in calibrate(scores, given.false_positive_rate, least)]
    else:
        pairs = list(buckets_of(given))
    return LockedRule.model_validate(
        {
            "threshold": _written(pairs),
            "signal": leaf.signal,
            "pooling": pooling_of(leaf.pooling),
            "for": leaf.for_,
            "asked_rate": given.false_positive_rate if isinstance(given, Rate) else None,
            "benign_rate": float(fires(scores, pairs).mean()),
            "benign_texts": len(scores.best),
            "caught": None if positives is None else float(fires(positives, pairs).mean()),
        }
    )


def _written(pairs: Sequence[tuple[int | None, float]]) -> object:
    """As a lock has it: one threshold for all lengths is a plain number."""
    if len(pairs) == 1:
        return pairs[0][1]
    return [{"up_to": up_to, "threshold": value} for up_to, value in pairs]


def _held_out(fitted: Fitted, i: int) -> tuple[Reached, float]:
    """Held-out benign scores in the units of the final detector, and the least threshold."""
    rows, how = fitted.rows, fitted.recipe.rules[i]
    middle, spread = scale_of(fitted.detector, how, rows, rows.everything)
    parts = [fitted.crossed[i].take(rows.benign).unscaled(middle, spread)]
    if fitted.aside is not None:
        parts.append(_as_they_are(fitted.detector, how, [fitted.aside]))
    positive = np.flatnonzero((rows.own == 1) & (rows.positive == 1))
    strong = float(np.median(how.score(fitted.detector.tokens(rows.read, positive))))
    return stack(parts), max(LEAST_SHARE * strong, 1e-6)


def _positives(fitted: Fitted, i: int) -> Reached:
    """Held-out scores of the own positives in the units of the final detector."""
    rows = fitted.rows
    middle, spread = scale_of(fitted.detector, fitted.recipe.rules[i], rows, rows.everything)
    which = np.flatnonzero((rows.own == 1) & (rows.positive == 1))
    return fitted.crossed[i].take(which).unscaled(middle, spread)


def _as_they_are(detector: Detector, how: Pooled, benign: Sequence[TextReadings]) -> Reached:
    return stack([how.reach(detector.tokens(read, np.arange(len(read)))) for read in benign])
