"""Metrics whose label values come from policies. Their label sets are created when policies load, and removed with
them.

A request that still runs under a replaced policy set may report a policy that is gone. It is counted in
`retired_policy_events`, so that no removed label set comes back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence

from prometheus_client import Counter, Gauge

from monitor.records import Detection, Suppression
from monitor.telemetry.metrics import labels
from monitor.telemetry.metrics.families import Families
from monitor.telemetry.metrics.labels import Exemplar, LabelSet, PolicyView

HELD, NOT_HELD, CAME_BACK = "held", "not_held", "came_back"
OUTCOMES = (HELD, NOT_HELD, CAME_BACK)
"""Whether a policy's clamps held in a request. `held`: the readings stayed down. `not_held`: they were still high at
the clamped layer. `came_back`: they were down there, but a probe at a later layer found the concept again.
"""

RELOADS = ("success", "failure")


class PolicyMetrics:
    """Metrics by policy. Every method may be called from any thread."""

    def __init__(self, families: Families) -> None:
        counter, gauge = families.counter, families.gauge
        self._lock = threading.Lock()
        self._held: dict[Counter | Gauge, dict[LabelSet, float]] = {}
        self._detections = counter("detections", "Rules that fired.", *labels.DETECTION)
        self._suppressed = counter("suppressed_tokens", "Tokens run while a policy clamped.", "policy")
        self._outcomes = counter(
            "suppressions", "Requests in which a policy clamped, by what became of it.", "policy", "outcome"
        )
        self._blocked = counter("blocked_requests", "Requests that a policy blocked.", "policy")
        self._retired = counter(
            "retired_policy_events",
            "Detections, blocks and clamped tokens of requests that ended on policies replaced meanwhile.",
        )
        self._info = gauge(
            "policy_info", "1 for every loaded policy.", "policy", "category", "severity", "maturity"
        )
        self._fail_open = gauge(
            "policy_fail_open", "1 where a policy lets through what could not be scored.", "policy"
        )
        self._baseline = gauge(
            "rule_baseline_ratio",
            "Share of the benign texts of its calibration on which a rule fires.",
            "policy",
            "rule",
        )
        self._reloads = counter("policies_reloads", "Attempts to load policies.", "result")
        self._reload = gauge("policies_last_reload_success", "1 where the last load of policies worked.")
        self._reloaded = gauge(
            "policies_last_reload_success_timestamp_seconds", "When policies were last loaded with success."
        )
        for result in RELOADS:
            self._reloads.labels(result)

    def changed(self, policies: Sequence[PolicyView]) -> None:
        """Create the label sets of the policies that are now in force, and remove those of all others."""
        with self._lock:
            for family, sets in self._wanted(policies).items():
                _renew(family, self._held.get(family, {}), sets)
                self._held[family] = dict(sets)
        self._reloads.labels("success").inc()
        self._reload.set(1)
        self._reloaded.set(time.time())

    def reload_failed(self) -> None:
        """Count a failed attempt to load policies."""
        self._reloads.labels("failure").inc()
        self._reload.set(0)

    def detected(self, detection: Detection, exemplar: Exemplar) -> None:
        """Count a rule that fired."""
        self._add(self._detections, labels.of_detection(detection), 1, exemplar)

    def blocked(self, policy: str, exemplar: Exemplar) -> None:
        """Count a request that a policy blocked."""
        self._add(self._blocked, (policy,), 1, exemplar)

    def suppressed(self, policy: str, tokens: int) -> None:
        """Count tokens that ran while a policy clamped its features."""
        self._add(self._suppressed, (policy,), tokens)

    def suppression_ended(self, found: Suppression) -> None:
        """Count the outcome of a request in which a policy clamped its features."""
        outcome = HELD if found.held else NOT_HELD if not found.held_at_layer else CAME_BACK
        self._add(self._outcomes, (found.policy, outcome), 1)

    def _wanted(self, policies: Sequence[PolicyView]) -> Mapping[Counter | Gauge, Mapping[LabelSet, float]]:
        """All label sets of these policies by metric, each with its initial value."""
        names = [policy.name for policy in policies]
        rules = [(policy, rule) for policy in policies for rule in policy.rules]
        return {
            self._detections: _counters(found for p, rule in rules for found in labels.of_rule(p, rule)),
            self._suppressed: _counters((name,) for name in names),
            self._outcomes: _counters((name, outcome) for name in names for outcome in OUTCOMES),
            self._blocked: _counters((name,) for name in names),
            self._info: {labels.of_policy(policy): 1.0 for policy in policies},
            self._fail_open: {(policy.name,): float(not policy.closed) for policy in policies},
            self._baseline: {
                (policy.name, rule.name): rule.benign_rate
                for policy, rule in rules
                if rule.benign_rate is not None
            },
        }

    def _add(self, family: Counter, values: LabelSet, amount: float, exemplar: Exemplar = None) -> None:
        with self._lock:
            known = values in self._held.get(family, ())
            (family.labels(*values) if known else self._retired).inc(amount, exemplar)


def _counters(found: Iterable[LabelSet]) -> dict[LabelSet, float]:
    return dict.fromkeys(found, 0.0)


def _renew(family: Counter | Gauge, old: Collection[LabelSet], new: Mapping[LabelSet, float]) -> None:
    for values in set(old) - set(new):
        family.remove(*values)
    for values, value in new.items():
        child = family.labels(*values)
        if isinstance(child, Gauge):
            child.set(value)
