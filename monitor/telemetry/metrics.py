"""Every metric of the server, by name, label and unit.

Knows Prometheus. Does not know gRPC, the engine or how a policy decides. The registry is injected, and every
label set exists from the moment that its bounded set is known, so that rates start from zero.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from monitor.records import Detection, Digests, Verdict, WatchPlan
from monitor.telemetry import labels
from monitor.telemetry.activations import ActivationMeter
from monitor.telemetry.labels import PolicyView

DURATIONS = (0.001, 0.0025, 0.005, *(0.01 * 2**power for power in range(14)))
"""Seconds. From 0.01 on the buckets of OpenTelemetry's generative AI conventions, with finer ones below."""

FAILURES = (
    "gap",
    "incomplete",
    "miscounted",
    "non_finite",
    "not_run",
    "pass_failed",
    "rule_error",
    "shape",
    "tap_missed",
    "other",
)
"""Causes of a monitoring failure; one that is not listed counts as `other`."""

REJECTIONS = ("queue", "calls", "draining", "engine")
"""Why a well-formed request was turned away before it ran."""

_NAMESPACE = "sae_monitor"


class Metrics:
    """Counters and gauges of one server, in a registry of its own unless one is given.

    Every method may be called from any thread.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry = registry or CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = self._counter("requests", "Calls that ended, by gRPC status.", "method", "code")
        self._duration = self._histogram(
            "request_duration_seconds", "Time from arrival to end of a call.", "method"
        )
        self._first = self._histogram(
            "time_to_first_token_seconds", "Time from arrival of a call to its first text."
        )
        self._rejected = self._counter("rejected_requests", "Calls turned away before they ran.", "reason")
        self._unscored = self._counter("tokens_unscored", "Tokens that ran and were not scored.", "cause")
        self._truncated = self._counter(
            "tokens_truncated", "Tokens of input dropped at the caller's request."
        )
        self._detections = self._counter("detections", "Rules that fired.", *labels.DETECTION)
        self._suppressed = self._counter("suppressed_tokens", "Tokens run while a policy clamped.", "policy")
        self._blocked = self._counter("blocked_requests", "Requests that a policy blocked.", "policy")
        self._failures = self._counter(
            "monitor_failures", "Requests that could not be scored in full.", "cause"
        )
        self._queued = self._gauge("queue_depth", "Requests that wait for the engine or the scorer.")
        self._running = self._gauge("running", "Requests that the engine or the scorer is running.")
        self._l0 = self._gauge("dictionary_l0", "Mean active features per token, as last measured.")
        self._explained = self._gauge(
            "dictionary_explained_variance_ratio",
            "Share of the residual stream's variance that the dictionary explains, as last measured.",
        )
        self._outliers = self._gauge(
            "dictionary_norm_outliers_ratio",
            "Share of tokens whose residual is far longer than the median, as last measured.",
        )
        self.dictionary_measured(math.nan, math.nan, math.nan)
        self._policy_info = self._gauge(
            "policy_info", "1 for every loaded policy.", "policy", "category", "severity", "maturity"
        )
        self._reload = self._gauge(
            "policies_last_reload_success", "1 where the last load of policies worked."
        )
        self._reloaded = self._gauge(
            "policies_last_reload_success_timestamp_seconds", "When policies were last loaded with success."
        )
        self._build = self._gauge(
            "build_info", "1; what runs.", "version", "model_digest", "dictionary_digest", "policies_digest"
        )
        self._prepare()

    def _counter(self, name: str, text: str, *names: str) -> Counter:
        return Counter(name, text, names, namespace=_NAMESPACE, registry=self.registry)

    def _gauge(self, name: str, text: str, *names: str) -> Gauge:
        return Gauge(name, text, names, namespace=_NAMESPACE, registry=self.registry)

    def _histogram(self, name: str, text: str, *names: str) -> Histogram:
        return Histogram(name, text, names, namespace=_NAMESPACE, buckets=DURATIONS, registry=self.registry)

    def _prepare(self) -> None:
        """Create the label sets that do not depend on policies."""
        for cause in FAILURES:
            self._unscored.labels(cause)
            self._failures.labels(cause)
        for reason in REJECTIONS:
            self._rejected.labels(reason)

    def methods(self, methods: Iterable[str], codes: Sequence[str]) -> None:
        """Create the label sets of calls: short method names, names of gRPC status codes."""
        for method in methods:
            self._duration.labels(method)
            for code in codes:
                self._requests.labels(method, code)

    def policies_loaded(self, policies: Sequence[PolicyView], watch: WatchPlan) -> ActivationMeter:
        """Create every label set of a policy set; gives the meter that its readings go to."""
        for policy in policies:
            self._policy_info.labels(
                policy.name, policy.category, policy.severity.value, policy.maturity
            ).set(1)
            self._suppressed.labels(policy.name)
            self._blocked.labels(policy.name)
            for rule in policy.rules:
                for values in labels.of_rule(policy, rule):
                    self._detections.labels(*values)
        self._reload.set(1)
        self._reloaded.set(time.time())
        meter = ActivationMeter(watch, labels.watched_by(policies))
        self.registry.register(meter)
        return meter

    def engine(self, queued: Callable[[], int], running: Callable[[], int]) -> None:
        """Read the depth of the queue and the number of running requests at each scrape."""
        self._queued.set_function(queued)
        self._running.set_function(running)

    def built(self, version: str, digests: Digests) -> None:
        """Say what runs."""
        self._build.labels(version, digests.model, digests.dictionary, digests.policies).set(1)

    def dictionary_measured(self, l0: float, explained_variance: float, norm_outliers: float) -> None:
        """Say how well the dictionary does on what the model reads; NaN stands for "not measured"."""
        self._l0.set(l0)
        self._explained.set(explained_variance)
        self._outliers.set(norm_outliers)

    def call_ended(self, method: str, code: str, seconds: float) -> None:
        """One call ended with a gRPC status."""
        self._requests.labels(method, code).inc()
        self._duration.labels(method).observe(seconds)

    def first_token(self, seconds: float) -> None:
        """The first text of a generation is on its way."""
        self._first.observe(seconds)

    def rejected(self, reason: str) -> None:
        """A call was turned away; `reason` is one of REJECTIONS."""
        self._rejected.labels(reason).inc()

    def judged(self, verdict: Verdict) -> None:
        """A request ended with this verdict."""
        coverage = verdict.coverage
        self._truncated.inc(coverage.tokens_truncated)
        if not verdict.failure:
            return
        cause = verdict.failure if verdict.failure in FAILURES else "other"
        self._failures.labels(cause).inc()
        self._unscored.labels(cause).inc(max(0, coverage.tokens_run - coverage.tokens_scored))

    def detected(self, detection: Detection) -> None:
        """A rule fired."""
        self._detections.labels(*labels.of_detection(detection)).inc()

    def suppressed(self, policy: str, tokens: int) -> None:
        """Tokens ran while a policy clamped its features."""
        self._suppressed.labels(policy).inc(tokens)

    def blocked(self, policy: str) -> None:
        """A policy blocked a request."""
        self._blocked.labels(policy).inc()
