"""Thresholds of rules and conditions, per length bucket, set so that a stated share of benign texts fires.

A learnt detector is calibrated on benign texts that it did not learn from: texts set aside, and the others by their
held-out scores. Pinned features, pinned probes and anomaly signals learn nothing, so every benign text calibrates them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from monitor.policy.files.lock import LockedRule, packed
from monitor.policy.fit.cross_validation import scale_of
from monitor.policy.fit.detectors import Detector, Recipe, own_detector
from monitor.policy.fit.lengths import NEVER, BucketMaxima, calibrate, fires, stack
from monitor.policy.fit.pooling import RulePooling
from monitor.policy.fit.readings import TextReadings
from monitor.policy.fit.rows import FitRows
from monitor.policy.schema.policy import AskedRate, CheckModel, PolicyModel, TopKMean, pooling_of
from monitor.policy.schema.threshold import thresholds_by_length

LEAST_SHARE = 0.1
"""Lower bound of a fitted threshold, as a share of the median score of the positive examples."""

Leaf = tuple[str, str]
"""A rule or condition with a threshold of its own: the section of the lock (`rules` or `conditions`) and its name."""


@dataclass(frozen=True)
class LearntDetector:
    """A learnt detector, with the held-out scores that set its thresholds."""

    rows: FitRows
    recipe: Recipe
    detector: Detector
    held_out: list[BucketMaxima]
    """For each pooling of the recipe, held-out scores by the same kind of detector."""
    aside: TextReadings | None = None
    """Benign texts that were set aside: they set thresholds, and the detector did not learn from them."""


def learnt(policy: PolicyModel) -> dict[Leaf, CheckModel]:
    """The rules and conditions that name neither features nor a signal, and so read the policy's detector."""
    return {key: leaf for key, leaf in policy.leaves().items() if not leaf.own_columns}


def poolings(policy: PolicyModel) -> tuple[RulePooling, ...]:
    """The pooling of each of the `learnt` checks. Where there are none, the result is `top_k_mean` alone."""
    found = tuple(_pooling(leaf) for leaf in learnt(policy).values())
    return found or (RulePooling(TopKMean()),)


def lock_thresholds(
    policy: PolicyModel,
    benign: list[TextReadings],
    *,
    fitted: LearntDetector | None = None,
    pinned: Detector | None = None,
) -> dict[Leaf, LockedRule]:
    """Every rule and condition with its thresholds, and the share of benign texts on which it fires.

    `fitted` is the learnt detector of a policy with a concept; `pinned` is the detector that a policy names itself.
    """
    places = {key: place for place, key in enumerate(learnt(policy))}
    found = {}
    for key, leaf in policy.leaves().items():
        detector = own_detector(leaf) or pinned
        if detector is not None:
            found[key] = _calibrated(leaf, _scores(detector, _pooling(leaf), benign), NEVER)
        else:
            assert fitted is not None
            scores, least = _held_out(fitted, places[key])
            found[key] = _calibrated(leaf, scores, least, _positives(fitted, places[key]))
    return found


def _pooling(leaf: CheckModel) -> RulePooling:
    return RulePooling(pooling_of(leaf.pooling), leaf.for_)


def _calibrated(
    leaf: CheckModel, scores: BucketMaxima, least: float, positives: BucketMaxima | None = None
) -> LockedRule:
    """The lock's entry for a check. A threshold that the policy gives is measured, not changed."""
    given = leaf.threshold
    assert given is not None
    if isinstance(given, AskedRate):
        pairs = [(b.up_to, b.threshold) for b in calibrate(scores, given.false_positive_rate, least)]
    else:
        pairs = list(thresholds_by_length(given))
    return LockedRule.model_validate(
        {
            "threshold": _written(pairs),
            "signal": leaf.signal,
            "pooling": pooling_of(leaf.pooling),
            "for": leaf.for_,
            "asked_rate": given.false_positive_rate if isinstance(given, AskedRate) else None,
            "benign_rate": float(fires(scores, pairs).mean()),
            "benign_texts": len(scores.best),
            "caught": None if positives is None else float(fires(positives, pairs).mean()),
            "held_out": None if positives is None else packed(positives.best.astype(np.float32)),
        }
    )


def _written(pairs: Sequence[tuple[int | None, float]]) -> object:
    """Thresholds as a lock writes them: one for all lengths is a plain number."""
    if len(pairs) == 1:
        return pairs[0][1]
    return [{"up_to": up_to, "threshold": value} for up_to, value in pairs]


def _held_out(fitted: LearntDetector, i: int) -> tuple[BucketMaxima, float]:
    """Benign scores that the detector did not learn from, in its units, and the least threshold."""
    rows, how = fitted.rows, fitted.recipe.poolings[i]
    middle, spread = scale_of(fitted.detector, how, rows, rows.everything)
    parts = [fitted.held_out[i].take(rows.benign).unscaled(middle, spread)]
    if fitted.aside is not None:
        parts.append(_scores(fitted.detector, how, [fitted.aside]))
    strong = float(np.median(how.score(fitted.detector.tokens(rows.read, rows.own_positive))))
    return stack(parts), max(LEAST_SHARE * strong, 1e-6)


def _positives(fitted: LearntDetector, i: int) -> BucketMaxima:
    """Held-out scores of the own positives, in the units of the final detector."""
    rows = fitted.rows
    middle, spread = scale_of(fitted.detector, fitted.recipe.poolings[i], rows, rows.everything)
    return fitted.held_out[i].take(rows.own_positive).unscaled(middle, spread)


def _scores(detector: Detector, how: RulePooling, benign: Sequence[TextReadings]) -> BucketMaxima:
    return stack([how.bucket_maxima(detector.tokens(read, np.arange(len(read)))) for read in benign])
