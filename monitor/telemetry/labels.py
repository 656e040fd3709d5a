"""What metrics need to know of a policy: names, from bounded sets, that become labels.

Structural on purpose: telemetry stands beside the policies and imports nothing of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from monitor.records import Action, Clamp, Detection, Mode, Phase, Severity

DETECTION = ("policy", "rule", "category", "severity", "action", "mode", "phase")
"""Label names of a detection, in the order of `of_rule` and `of_detection`."""


class FeatureView(Protocol):
    """A feature that a rule reads."""

    @property
    def index(self) -> int:
        """Index in the dictionary."""


class RuleView(Protocol):
    """One rule, as far as labels go."""

    @property
    def name(self) -> str:
        """Unique in the policy."""

    @property
    def phases(self) -> Sequence[Phase]:
        """Whose text it reads."""

    @property
    def severity(self) -> Severity:
        """How bad it is when the rule is right."""

    @property
    def action(self) -> Action:
        """What it does."""

    @property
    def mode(self) -> Mode:
        """Whether it acts."""

    @property
    def features(self) -> Sequence[FeatureView]:
        """Features that it reads."""


class PolicyView(Protocol):
    """One policy, as far as labels go."""

    @property
    def name(self) -> str:
        """Unique in the set."""

    @property
    def category(self) -> str:
        """What kind of harm."""

    @property
    def severity(self) -> Severity:
        """How bad it is."""

    @property
    def maturity(self) -> str:
        """What its measured quality supports."""

    @property
    def rules(self) -> Sequence[RuleView]:
        """Its rules."""

    @property
    def clamps(self) -> Sequence[Clamp]:
        """What it clamps when it suppresses."""


def of_rule(policy: PolicyView, rule: RuleView) -> Iterator[tuple[str, ...]]:
    """Every label set that detections of a rule can have: one for each phase that it reads."""
    for phase in rule.phases:
        yield (
            policy.name,
            rule.name,
            policy.category,
            rule.severity.value,
            rule.action.name.lower(),
            rule.mode.value,
            phase.value,
        )


def of_detection(detection: Detection) -> tuple[str, ...]:
    """The label set of a detection."""
    return (
        detection.policy,
        detection.rule,
        detection.category,
        detection.severity.value,
        detection.action.name.lower(),
        detection.mode.value,
        detection.phase.value,
    )


def watched_by(policies: Sequence[PolicyView]) -> Iterator[tuple[str, int]]:
    """Every (policy, feature) whose activation is shown, each once."""
    for policy in policies:
        seen = dict.fromkeys(feature.index for rule in policy.rules for feature in rule.features)
        for feature in seen:
            yield policy.name, feature
