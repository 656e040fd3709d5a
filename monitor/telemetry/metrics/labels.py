"""What metrics need to know of a policy: names, from bounded sets, that become labels.

Structural on purpose: telemetry stands beside the policies and imports nothing of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Protocol

from monitor.records import Action, Clamp, Detection, Mode, Phase, Severity, WatchPlan

DETECTION = ("policy", "rule", "category", "severity", "action", "mode", "phase")
"""Label names of a detection, in the order of `of_rule` and `of_detection`."""

LabelSet = tuple[str, ...]
"""Values of a metric's labels, in the order of its label names."""

Exemplar = dict[str, str] | None
"""Labels that lead from a sample to the trace that it was counted in."""


class FeatureView(Protocol):
    """A feature that a rule reads."""

    @property
    def index(self) -> int:
        """Index in the dictionary."""

    @property
    def weight(self) -> float:
        """How much a reading of it counts."""


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

    @property
    def benign_rate(self) -> float | None:
        """Share of its calibration's benign texts on which it fires; None where nothing was calibrated."""


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

    @property
    def closed(self) -> bool:
        """True where it blocks what could not be scored."""


class PolicySetView(Protocol):
    """The policies that are in force together, as far as metrics go."""

    @property
    def policies(self) -> Sequence[PolicyView]:
        """In the order of their names."""

    @property
    def watch(self) -> WatchPlan:
        """Features that they read, in column order."""


def of_policy(policy: PolicyView) -> LabelSet:
    """The label set of `policy_info`."""
    return policy.name, policy.category, policy.severity.value, policy.maturity


def of_rule(policy: PolicyView, rule: RuleView) -> Iterator[LabelSet]:
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


def of_detection(detection: Detection) -> LabelSet:
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


def watched_by(policies: Sequence[PolicyView]) -> dict[str, list[int]]:
    """The features whose activation is shown, by policy: each once, those that weigh most in its rules first."""
    return {policy.name: _ranked(policy) for policy in policies}


def _ranked(policy: PolicyView) -> list[int]:
    weights: dict[int, float] = {}
    for rule in policy.rules:
        for feature in rule.features:
            weights[feature.index] = max(weights.get(feature.index, 0.0), abs(feature.weight))
    return sorted(weights, key=lambda index: -weights[index])


trace_id: ContextVar[str] = ContextVar("sae_monitor_trace_id", default="")
"""32 hexadecimal digits of the trace that this task serves; empty where nothing is traced."""

_DIGITS = frozenset("0123456789abcdef")


def exemplar() -> Exemplar:
    """`{"trace_id": …}` of the current task; None where there is no trace, or what is set is no trace id.

    Read it on the task that serves the request: context variables do not follow work onto other threads.
    """
    found = trace_id.get()
    return {"trace_id": found} if len(found) == 32 and _DIGITS.issuperset(found) else None
