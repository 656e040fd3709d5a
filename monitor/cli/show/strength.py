"""The number by which a token is shaded: the score of a rule, or the reading of a feature."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from monitor.v1 import monitor_pb2 as pb


@dataclass(frozen=True, slots=True)
class Scale:
    """The name and unit of a token's number, and the values from which it is shaded."""

    noun: str
    unit: str
    levels: tuple[float, float, float, float, float]
    """The lowest number of each of five shades."""
    strong: float
    """The lowest number with which a token is marked where there are no colours."""


RULE_SCALE = Scale("score", "of the rule's threshold", (1.0, 2.0, 4.0, 8.0, 12.0), strong=4.0)
READING_SCALE = Scale("reading", "of the feature's maximum", (0.1, 0.25, 0.4, 0.6, 0.8), strong=0.4)


class TokenMeasure(Protocol):
    """Gives every token a number on a scale."""

    @property
    def scale(self) -> Scale:
        """The scale of the numbers."""

    def strength(self, token: pb.ScoredToken) -> float:
        """The token's number."""


@dataclass(frozen=True, slots=True)
class WeightedRule:
    """The parts of a rule that a single token's score depends on."""

    weights: dict[int, float]
    phases: frozenset[int]
    threshold: float


@dataclass(frozen=True, slots=True)
class RuleScores:
    """The strongest rule's score at a token, in units of that rule's threshold.

    A token's score is the sum of weight times reading; rules pool it over tokens. The first token has the
    score 0: its activations are huge in every sequence, so rules skip it.
    """

    rules: tuple[WeightedRule, ...]

    @classmethod
    def of(cls, policies: Iterable[pb.Policy]) -> RuleScores:
        """Scores by every rule of these policies, rules in shadow mode included."""
        return cls(tuple(_weighted(rule) for policy in policies for rule in policy.rules))

    @property
    def scale(self) -> Scale:
        """The scale of scores: multiples of a rule's threshold."""
        return RULE_SCALE

    def strength(self, token: pb.ScoredToken) -> float:
        """The highest score of any rule; 1 where this token alone reaches the rule's threshold."""
        if token.position == 0:
            return 0.0
        readings = [(r.feature, r.value) for r in token.readings]
        return max((_share(rule, token.phase, readings) for rule in self.rules), default=0.0)


@dataclass(frozen=True, slots=True)
class FeatureReadings:
    """The highest reading of some features at a token, after clamps, in units of the recorded maximum."""

    features: frozenset[int]

    @property
    def scale(self) -> Scale:
        """The scale of readings: shares of a feature's recorded maximum."""
        return READING_SCALE

    def strength(self, token: pb.ScoredToken) -> float:
        """The highest reading; 0 at the start token."""
        if token.position == 0:
            return 0.0
        return max((left(r) for r in token.readings if r.feature in self.features), default=0.0)


def left(reading: pb.Reading) -> float:
    """A reading after clamps; the reading itself where nothing was clamped."""
    return float(reading.value_after_clamp if reading.HasField("value_after_clamp") else reading.value)


def _weighted(rule: pb.Rule) -> WeightedRule:
    return WeightedRule(
        dict(zip(rule.features, rule.weights, strict=False)), frozenset(rule.phases), rule.threshold
    )


def _share(rule: WeightedRule, phase: int, readings: list[tuple[int, float]]) -> float:
    """The rule's score here by its threshold, at least 0."""
    if rule.threshold <= 0 or (rule.phases and phase not in rule.phases):
        return 0.0
    score = sum(rule.weights.get(feature, 0.0) * value for feature, value in readings)
    return max(0.0, score / rule.threshold)
