"""Answers to moderations: what was found in a text, by the categories of the policies and by the API's own names.

The API's thirteen names are there because clients expect them. This server measures none of them: each is false, with
score 0 and no input type to which it was applied. What the policies measure stands beside them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from monitor.policy.policy import Policy
from monitor.records import Action, Mode, RuleScore, Verdict

STANDARD = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
"""Categories of the OpenAI API."""


def result(verdict: Verdict, policies: Sequence[Policy]) -> dict[str, Any]:
    """One result. A category is flagged where an enforced rule of one of its policies fired."""
    enforced = [found for found in verdict.detections if found.mode is Mode.ENFORCE]
    flagged = {found.category for found in enforced if found.action > Action.ALLOW}
    category = {policy.name: policy.category for policy in policies}
    ours = sorted(set(category.values()))
    scores = _scores(verdict.scores, category)
    return {
        "flagged": bool(flagged),
        "categories": dict.fromkeys(STANDARD, False) | {name: name in flagged for name in ours},
        "category_scores": dict.fromkeys(STANDARD, 0.0) | {name: scores.get(name, 0.0) for name in ours},
        "category_applied_input_types": {
            **{name: [] for name in STANDARD},
            **{name: ["text"] for name in ours if name in scores},
        },
    }


def _scores(found: Iterable[RuleScore], category: dict[str, str]) -> dict[str, float]:
    """The highest score of each category on a scale from 0 to 1, on which a rule's threshold is 0.5."""
    highest: dict[str, float] = {}
    for score in found:
        name = category[score.policy]
        highest[name] = max(highest.get(name, 0.0), scaled(score.score, score.threshold))
    return highest


def scaled(score: float, threshold: float) -> float:
    """A score on a scale from 0 to 1 on which the threshold is 0.5; not a probability.

    It grows with the distance from the threshold, in units of the threshold (of 1 where the threshold is 0).
    """
    if math.isnan(score) or score == -math.inf:
        return 0.0
    unit = abs(threshold) or 1.0
    distance = min(50.0, max(-50.0, 4.0 * (score - threshold) / unit))
    return 1.0 / (1.0 + math.exp(-distance))
