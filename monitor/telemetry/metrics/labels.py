"""Label values of metrics: those that come from policies and detections, and the trace id of exemplars.

Policies are described by protocols here, because telemetry does not import the policy package.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Protocol

from monitor.records import Action, Clamp, Detection, Mode, Phase, Severity, WatchPlan

DETECTION = ("policy", "rule", "category", "severity", "action", "mode", "phase")
"""Label names of detections, in the order of the values from `of_rule` and `of_detection`."""

LabelSet = tuple[str, ...]
"""Values of a metric's labels, in the order of its label names."""

Exemplar = dict[str, str] | None
"""Labels that lead from a sample to a trace, as `{"trace_id": …}`; None where nothing is traced."""


class FeatureView(Protocol):
    """A feature that a rule reads, as far as metrics need it."""

    @property
    def index(self) -> int:
        """Index in the dictionary."""

    @property
    def weight(self) -> float:
        """Its weight in the rule."""


class RuleView(Protocol):
    """A rule, as far as metrics need it."""

    @property
    def name(self) -> str:
        """Its name, unique in the policy."""

    @property
    def phases(self) -> Sequence[Phase]:
        """Phases of a request in which it is evaluated."""

    @property
    def severity(self) -> Severity:
        """Severity of its detections."""

    @property
    def action(self) -> Action:
        """Action of its detections."""

    @property
    def mode(self) -> Mode:
        """Whether its action is enforced or only recorded."""

    @property
    def features(self) -> Sequence[FeatureView]:
        """The features that it reads."""

    @property
    def benign_rate(self) -> float | None:
        """Share of benign calibration texts on which it fires; None where it was not calibrated."""


class PolicyView(Protocol):
    """A policy, as far as metrics need it."""

    @property
    def name(self) -> str:
        """Its name, unique in the set."""

    @property
    def category(self) -> str:
        """The kind of harm that it detects."""

    @property
    def severity(self) -> Severity:
        """Its severity, where a rule does not say another."""

    @property
    def maturity(self) -> str:
        """Its maturity, as its measured quality supports."""

    @property
    def rules(self) -> Sequence[RuleView]:
        """Its rules."""

    @property
    def clamps(self) -> Sequence[Clamp]:
        """Clamps that it applies when it suppresses."""

    @property
    def closed(self) -> bool:
        """True where requests that could not be scored are blocked (`on_error: closed`)."""


class PolicySetView(Protocol):
    """The policies that are in force together, as far as metrics need them."""

    @property
    def policies(self) -> Sequence[PolicyView]:
        """The policies, in the order of their names."""

    @property
    def watch(self) -> WatchPlan:
        """The features that they read, in the order of the readings' columns."""


def of_policy(policy: PolicyView) -> LabelSet:
    """Label values of a policy in `policy_info`."""
    return policy.name, policy.category, policy.severity.value, policy.maturity


def of_rule(policy: PolicyView, rule: RuleView) -> Iterator[LabelSet]:
    """All label values that detections of a rule can have: one tuple for each of its phases."""
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
    """Label values of a detection."""
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
    """The features of each policy's rules, each once, in descending order of their greatest weight."""
    return {policy.name: _ranked(policy) for policy in policies}


def _ranked(policy: PolicyView) -> list[int]:
    weights: dict[int, float] = {}
    for rule in policy.rules:
        for feature in rule.features:
            weights[feature.index] = max(weights.get(feature.index, 0.0), abs(feature.weight))
    return sorted(weights, key=lambda index: -weights[index])


trace_id: ContextVar[str] = ContextVar("sae_monitor_trace_id", default="")
"""Trace id of the request that the current task serves: 32 hexadecimal digits, or empty where nothing is traced.

Whoever opens a span sets it. Exemplars appear in the OpenMetrics format only.
"""

_DIGITS = frozenset("0123456789abcdef")


def exemplar() -> Exemplar:
    """The exemplar of the current task; None where there is no valid trace id.

    Call it on the task that serves the request, because context variables are not passed to other threads.
    """
    found = trace_id.get()
    return {"trace_id": found} if len(found) == 32 and _DIGITS.issuperset(found) else None
