"""The card of a fitted policy: what was measured, and what may be concluded.

Knows held-out scores. Does not know thresholds or what a rule does.
"""

from __future__ import annotations

import numpy as np

from monitor.policy.files.lock import Card, Difference, Maturity, Measure
from monitor.policy.fit.cross_validation import Crossed
from monitor.policy.fit.detectors import Rows
from monitor.policy.fit.metrics import RATE, Truth, curve, difference, measure_all, threshold_at
from monitor.policy.fit.readings import Floats

STABLE = (0.90, 0.60)
"""Least lower bound of AUROC, and least recall at 1 % false positives, of `stable`."""
BETA = (0.70, 0.20)
"""The same, of `beta`; below it a policy is `experimental` and stays in shadow unless told otherwise."""
TOPIC = 2.0
"""Recall over the rate on own negatives, below which a policy sees the topic rather than the concept."""
CLOSE = 0.03
"""A difference of AUROC too small to matter."""


def make_card(rows: Rows, crossed: Crossed, asked: str, seed: int) -> Card:
    """The card, from scores that were held out. `asked` is `features`, `probe` or `auto`: the probe where it is
    clearly better.
    """
    kept = np.flatnonzero(rows.measured == 1)
    scores = {
        "features": crossed.features[0].overall,
        "probe": crossed.probe[0].overall,
        **crossed.baselines,
    }
    truth = Truth(rows.positive[kept], rows.own[kept], rows.hard[kept], rows.groups[kept])
    measured = measure_all({name: values[kept] for name, values in scores.items()}, truth, seed)
    gain = difference(measured["probe"], measured["features"])
    detector = ("probe" if clearly_better(gain) else "features") if asked == "auto" else asked
    measures = {"policy": measured[detector].measure}
    measures |= {name: found.measure for name, found in measured.items() if name != detector}
    by_topic = _by_topic(scores[detector], rows)
    maturity = maturity_of(measures["policy"], by_topic)
    return Card.model_validate(
        {
            **_counts(rows),
            "detector": detector,
            "methods": measures,
            "curves": _curves(scores, rows, detector),
            "probe_gain": gain,
            "negative_rate": by_topic,
            "hard_negative_auroc": measures["policy"].hard_auroc,
            "maturity": maturity,
            "note": note_of(measures, gain, detector, by_topic, maturity),
        }
    )


def clearly_better(gain: Difference) -> bool:
    """True where one interval excludes zero upwards and neither excludes it downwards."""
    up = gain.auroc_low > 0 or gain.recall_low > 0
    return up and gain.auroc_high >= 0 and gain.recall_high >= 0


def _counts(rows: Rows) -> dict[str, int]:
    own = rows.own == 1
    return {
        "positive": int((own & (rows.positive == 1)).sum()),
        "negative": int((own & (rows.positive == 0) & (rows.hard == 0)).sum()),
        "hard_negative": int(rows.hard.sum()),
        "groups": len(np.unique(rows.groups[own])),
        "extra": int((rows.measured == 0).sum()),
    }


def _curves(scores: dict[str, Floats], rows: Rows, detector: str) -> dict[str, list[float]]:
    """By method, recall at every share of benign texts."""
    yes = np.flatnonzero((rows.own == 1) & (rows.positive == 1))
    return {
        "policy" if name == detector else name: curve(values[yes], values[rows.benign])
        for name, values in scores.items()
    }


def _by_topic(scores: Floats, rows: Rows) -> float:
    """Share of own negatives that reach what 1 % of the benign texts reach."""
    no = scores[(rows.own == 1) & (rows.positive == 0)]
    return float((no >= threshold_at(scores[rows.benign], RATE)).mean()) if len(no) else 0.0


def maturity_of(policy: Measure, by_topic: float) -> Maturity:
    """What the numbers support; `by_topic` is the share of own negatives that fire as well."""
    if policy.recall < TOPIC * by_topic:
        return "experimental"
    if policy.auroc_low >= STABLE[0] and policy.recall >= STABLE[1]:
        return "stable"
    return "beta" if policy.auroc_low >= BETA[0] and policy.recall >= BETA[1] else "experimental"


def note_of(
    measures: dict[str, Measure], gain: Difference, detector: str, by_topic: float, maturity: Maturity
) -> str:
    """The card in a few sentences."""
    mine = measures["policy"]
    verdict = {
        "stable": "Separates well on held-out examples.",
        "beta": "Separates on held-out examples, and misses many at a low rate of false positives.",
        "experimental": "Does not separate well enough to act on; rules without a `mode` stay in shadow.",
    }[maturity]
    parts = [verdict, f"AUROC {mine.auroc:.2f}, recall {mine.recall:.0%} where 1 % of benign texts fire."]
    if by_topic > 0.05:
        parts.append(f"{by_topic:.0%} of its own look-alikes and counterparts fire too.")
    if detector == "features" and clearly_better(gain):
        probe = measures["probe"]
        parts.append(
            f"A probe is clearly better (AUROC {probe.auroc:.2f}, recall {probe.recall:.0%}): "
            "`policy fit --detector probe` uses it."
        )
    if measures["bag_of_words"].auroc > mine.auroc - CLOSE:
        words = measures["bag_of_words"].auroc
        parts.append(f"A bag of words does as well ({words:.2f}): what is detected may be wording.")
    if measures["random_features"].auroc > mine.auroc - CLOSE:
        drawn = measures["random_features"].auroc
        parts.append(f"Random features do as well ({drawn:.2f}): these features are nothing special.")
    return " ".join(parts)
