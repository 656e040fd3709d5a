"""The card of a fitted policy: what was measured, and what may be concluded.

Knows held-out scores. Does not know thresholds or what a rule does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monitor.policy.examples import Label
from monitor.policy.fit.crossing import Crossed, Rows
from monitor.policy.fit.measuring import RATE, auroc, measure, threshold_at
from monitor.policy.lock import Card, Maturity, Measure

STABLE = (0.90, 0.60)
"""Least lower bound of AUROC, and least recall at 1 % false positives, of `stable`."""
BETA = (0.70, 0.20)
"""The same, of `beta`; below it a policy is `experimental` and stays in shadow unless told otherwise."""
TOPIC = 2.0
"""Recall over the rate on own negatives, below which a policy sees the topic rather than the concept."""
CLEARLY = 0.03
"""A difference of AUROC worth a word."""


def make_card(rows: Rows, crossed: Crossed, labels: Sequence[Label], seed: int) -> Card:
    """The card, from scores that were held out."""
    kept = np.flatnonzero(rows.measured == 1)
    methods = {
        "policy": crossed.rules[0],
        "linear_probe": crossed.linear_probe,
        "bag_of_words": crossed.bag_of_words,
    }
    measures = {
        name: measure(scores[kept], rows.positive[kept], rows.own[kept], rows.groups[kept], seed)
        for name, scores in methods.items()
    }
    own = crossed.rules[0][: len(labels)]
    hard = np.asarray([label is Label.HARD_NEGATIVE for label in labels])
    yes = np.asarray([label is Label.POSITIVE for label in labels])
    benign = crossed.rules[0][(rows.own == 0) & (rows.measured == 1)]
    by_topic = float((own[~yes] >= threshold_at(benign, RATE)).mean())
    maturity = maturity_of(measures["policy"], by_topic)
    return Card(
        positive=int(yes.sum()),
        negative=int((~yes & ~hard).sum()),
        hard_negative=int(hard.sum()),
        groups=len(np.unique(rows.groups[: len(labels)])),
        extra=len(rows.texts) - len(kept),
        methods=measures,
        negative_rate=by_topic,
        hard_negative_auroc=auroc(own[yes], own[hard]) if hard.any() else None,
        maturity=maturity,
        note=note_of(measures, by_topic, maturity),
    )


def maturity_of(policy: Measure, by_topic: float) -> Maturity:
    """What the numbers support; `by_topic` is the share of own negatives that fire as well."""
    if policy.recall < TOPIC * by_topic:
        return "experimental"
    if policy.auroc_low >= STABLE[0] and policy.recall >= STABLE[1]:
        return "stable"
    return "beta" if policy.auroc_low >= BETA[0] and policy.recall >= BETA[1] else "experimental"


def note_of(measures: dict[str, Measure], by_topic: float, maturity: Maturity) -> str:
    """The card in two or three sentences."""
    mine = measures["policy"]
    verdict = {
        "stable": "Separates well on held-out examples.",
        "beta": "Separates on held-out examples, and misses many at a low rate of false positives.",
        "experimental": "Does not separate well enough to act on; rules without a `mode` stay in shadow.",
    }[maturity]
    parts = [verdict, f"AUROC {mine.auroc:.2f}, recall {mine.recall:.0%} where 1 % of benign texts fire."]
    if by_topic > 0.05:
        parts.append(f"{by_topic:.0%} of its own look-alikes and counterparts fire too.")
    probe, words = measures["linear_probe"], measures["bag_of_words"]
    if probe.auroc > mine.auroc + CLEARLY:
        parts.append(f"A linear probe is clearly better ({probe.auroc:.2f}).")
    if words.auroc > mine.auroc - CLEARLY:
        parts.append(f"A bag of words does as well ({words.auroc:.2f}): what is detected may be wording.")
    return " ".join(parts)
