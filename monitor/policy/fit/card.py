"""The card of a fitted policy: what cross-validation measured, and what may be concluded from it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from monitor.policy.files.lock import Difference, Explained, Maturity, PolicyCard, Separation
from monitor.policy.fit.cross_validation import HeldOutScores
from monitor.policy.fit.metrics import (
    RATE,
    RESAMPLES,
    ResampledSeparation,
    Truth,
    curve,
    difference,
    measure_all,
    threshold_at,
)
from monitor.policy.fit.readings import Floats, Indices
from monitor.policy.fit.rows import FitRows

STABLE = (0.90, 0.60)
"""What `stable` needs: the lower end of the AUROC's interval, and the recall at 1 % false positives."""
BETA = (0.70, 0.20)
"""What `beta` needs. Below it a policy is `experimental`, and its rules stay in shadow unless they set `mode`."""
TOPIC = 2.0
"""Recall must be at least this multiple of the share of own negatives that fire. Below it the policy detects the topic
and not the concept, and is `experimental`."""
CLOSE = 0.03
"""A baseline counts as doing as well as the policy where it is less than this much lower, words in recall too."""

POOLINGS = ("mean", "max", "top_k_mean")
"""Aggregates that rules have as a pooling."""
MUCH = 0.1
"""By so much more recall another pooling is worth a word."""
FEW = 100
"""Resamples for what stands beside the methods: sizes and aggregates."""


def make_card(
    rows: FitRows, crossed: HeldOutScores, seed: int, explained: Explained | None = None
) -> PolicyCard:
    """Make the card from held-out scores; `explained` where a probe detects."""
    kept = np.flatnonzero(rows.measured == 1)
    truth = Truth(rows.positive[kept], rows.own[kept], rows.hard[kept], rows.groups[kept])

    def measured(methods: dict[str, Floats], resamples: int) -> dict[str, ResampledSeparation]:
        return measure_all({name: scores[kept] for name, scores in methods.items()}, truth, seed, resamples)

    found = measured(crossed.methods, RESAMPLES)
    sizes, aggregates = (measured(scores, FEW) for scores in (crossed.sizes, crossed.aggregates))
    measures = {name: one.measure for name, one in found.items()}
    gain = difference(found["probe"], found["features"])
    by_topic = _by_topic(crossed.methods["policy"], rows)
    maturity = maturity_of(measures["policy"], by_topic)
    return PolicyCard.model_validate(
        {
            **_counts(rows),
            "detector": crossed.choice.kind,
            "methods": measures,
            "sizes": {name: one.measure for name, one in sizes.items()},
            "aggregates": {name: one.measure for name, one in aggregates.items()},
            "explained": explained,
            "curves": _curves(crossed.methods, rows),
            "probe_gain": gain,
            "gain": difference(found["policy"], found["bag_of_words"]),
            "negative_rate": by_topic,
            "hard_negative_auroc": measures["policy"].hard_auroc,
            "maturity": maturity,
            "note": " ".join(
                [
                    note_of(measures, gain, crossed.choice.kind, by_topic, maturity),
                    *pooled_better(
                        {name: one.measure for name, one in aggregates.items()}, measures["policy"]
                    ),
                ]
            ),
        }
    )


def pooled_better(aggregates: Mapping[str, Separation], mine: Separation) -> list[str]:
    """A sentence on the pooling that would catch many more; none where none of those that rules have would."""
    name = max(POOLINGS, key=lambda one: aggregates[one].recall)
    if aggregates[name].recall <= mine.recall + MUCH:
        return []
    return [
        f"Pooled by `{name}` over whole texts, the same detector would catch {aggregates[name].recall:.0%}."
    ]


def clearly_better(gain: Difference) -> bool:
    """True where the gain in AUROC or recall has an interval above zero, and neither has one below zero."""
    up = gain.auroc_low > 0 or gain.recall_low > 0
    return up and gain.auroc_high >= 0 and gain.recall_high >= 0


def _counts(rows: FitRows) -> dict[str, int]:
    own = rows.own == 1

    def texts(which: Indices) -> int:  # a statement is two rows
        return len({rows.texts[int(i)] for i in np.flatnonzero(which)})

    return {
        "positive": texts(own & (rows.positive == 1)),
        "negative": texts(own & (rows.positive == 0) & (rows.hard == 0)),
        "hard_negative": texts(rows.hard == 1),
        "groups": len(np.unique(rows.groups[own])),
        "extra": int((rows.measured == 0).sum()),
    }


def _curves(scores: dict[str, Floats], rows: FitRows) -> dict[str, list[float]]:
    """For each method, its recall at the false-positive rates of `CURVE`."""
    yes = np.flatnonzero((rows.own == 1) & (rows.positive == 1))
    return {name: curve(values[yes], values[rows.benign]) for name, values in scores.items()}


def _by_topic(scores: Floats, rows: FitRows) -> float:
    """Share of own negatives that reach the threshold which 1 % of the benign texts reach."""
    no = scores[(rows.own == 1) & (rows.positive == 0)]
    return float((no >= threshold_at(scores[rows.benign], RATE)).mean()) if len(no) else 0.0


def maturity_of(policy: Separation, by_topic: float) -> Maturity:
    """The maturity that the measurements support.

    `by_topic` is the share of own negatives that reach the threshold which 1 % of the benign texts reach.
    """
    if policy.recall < TOPIC * by_topic:
        return "experimental"
    if policy.auroc_low >= STABLE[0] and policy.recall >= STABLE[1]:
        return "stable"
    return "beta" if policy.auroc_low >= BETA[0] and policy.recall >= BETA[1] else "experimental"


def note_of(
    measures: dict[str, Separation], gain: Difference, detector: str, by_topic: float, maturity: Maturity
) -> str:
    """What the card says about relying on the policy, in a few sentences."""
    mine = measures["policy"]
    beta = "misses many at a low rate of false positives"
    if mine.recall >= STABLE[1]:  # It is the interval that keeps it from `stable`.
        beta = "these are too few to tell how well"
    verdict = {
        "stable": "Separates well on held-out examples.",
        "beta": f"Separates on held-out examples, and {beta}.",
        "experimental": "Does not separate well enough to act on; rules without a `mode` stay in shadow.",
    }[maturity]
    parts = [verdict, f"AUROC {mine.auroc:.2f}, recall {mine.recall:.0%} where 1 % of benign texts fire."]
    if by_topic > 0.05:
        parts.append(f"{by_topic:.0%} of its own look-alikes and counterparts fire too.")
    if detector == "features" and clearly_better(gain):
        probe = measures["probe"]
        parts.append(
            f"A probe is clearly better (AUROC {probe.auroc:.2f}, recall {probe.recall:.0%}): "
            "`policy fit` without `--detector` uses what is best."
        )
    words = measures["bag_of_words"]
    if words.auroc > mine.auroc - CLOSE and words.recall > mine.recall - CLOSE:
        parts.append(
            f"A bag of words does as well ({words.auroc:.2f}, {words.recall:.0%}): what is detected may be wording."
        )
    if measures["random_features"].auroc > mine.auroc - CLOSE:
        drawn = measures["random_features"].auroc
        parts.append(f"Random features do as well ({drawn:.2f}): these features are nothing special.")
    return " ".join(parts)
