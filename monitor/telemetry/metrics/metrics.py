"""Every metric of the server, by name, label and unit.

Label values come from bounded sets. Every label set is created as soon as its values are known, so that rates start
from zero. Metrics of policies, of the decision log, of access and of the server's state have modules of their own in
this package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector

from monitor.records import Action, Detection, Digests, Failure, Status, Verdict, WatchPlan
from monitor.telemetry.metrics import labels
from monitor.telemetry.metrics.activations import (
    ActivationCollector,
    ActivationLedger,
    ActivationMeter,
    features_of,
    shown,
)
from monitor.telemetry.metrics.decisions import DecisionLogMetrics
from monitor.telemetry.metrics.families import Families
from monitor.telemetry.metrics.labels import Exemplar, PolicySetView, PolicyView, exemplar
from monitor.telemetry.metrics.policies import PolicyMetrics
from monitor.telemetry.metrics.server_state import HealthMetrics, LostLinesCollector, QueueCollector
from monitor.telemetry.output import lost_lines

FAILURES = tuple(cause for cause in Failure if cause is not Failure.NOT_CONCLUDED)
"""Causes of a monitoring failure that a verdict can have: label values."""

REJECTIONS = ("queue", "calls", "draining", "engine", "memory", "log", "caller_calls", "caller_tokens")
"""Why a well-formed request was turned away before it ran."""

FEATURE_LIMIT = 1000
"""Default limit for the label sets of activation metrics, each of which is fifteen time series."""


class Metrics:
    """Counters and gauges of one server, in a registry of its own unless one is given.

    Every method may be called from any thread.
    """

    def __init__(self, registry: CollectorRegistry | None = None, feature_limit: int = FEATURE_LIMIT) -> None:
        self.registry = registry = registry or CollectorRegistry()
        families = Families(registry)
        self._feature_limit = feature_limit
        self._density: Sequence[float] = ()
        self._ledger = ActivationLedger()
        self._activations = ActivationCollector(self._ledger.counts)
        self._work = QueueCollector()
        self.policies = PolicyMetrics(families)
        self.decision_log = DecisionLogMetrics(families)
        self.health = HealthMetrics(families)
        self._prepare(families)
        for collector in (self._activations, self._work, LostLinesCollector(lost_lines)):
            registry.register(collector)
        ProcessCollector(registry=registry)

    def _prepare(self, families: Families) -> None:
        """Make the metrics of requests, and the label sets that do not depend on policies."""
        counter, histogram = families.counter, families.histogram
        self._requests = counter("requests", "Calls that ended, by gRPC status.", "method", "code")
        self._duration = histogram(
            "request_duration_seconds", "Time from arrival to end of a call.", "method"
        )
        self._first = histogram(
            "time_to_first_token_seconds", "Time from arrival of a call to its first text."
        )
        self._rejected = counter("rejected_requests", "Calls turned away before they ran.", "reason")
        self._unscored = counter("tokens_unscored", "Tokens that ran and were not scored.", "cause")
        self._truncated = counter("tokens_truncated", "Tokens of input dropped at the caller's request.")
        self._failures = counter("monitor_failures", "Requests that could not be scored in full.", "cause")
        self._passed = counter(
            "fail_open_requests", "Requests let through although they were not scored in full.", "cause"
        )
        self._withheld = counter(
            "fail_closed_requests", "Requests blocked because they were not scored in full.", "cause"
        )
        self._verdicts = counter(
            "verdicts", "Requests that were judged, by status and strongest action.", "status", "action"
        )
        self._build = families.gauge(
            "build_info",
            "1; version and digests.",
            "version",
            "model_digest",
            "dictionary_digest",
            "policies_digest",
        )
        self._engine = families.gauge(
            "engine_info", "1; `separate` where every pass runs one request, else `continuous`.", "batching"
        )
        for cause in FAILURES:
            for by_cause in (self._unscored, self._failures, self._passed, self._withheld):
                by_cause.labels(cause)
        for reason in REJECTIONS:
            self._rejected.labels(reason)
        for status in Status:
            for action in Action:
                self._verdicts.labels(status.value, action.name.lower())

    def methods(self, methods: Iterable[str], codes: Sequence[str]) -> None:
        """Create the label sets of calls: short method names, names of gRPC status codes."""
        for method in methods:
            self._duration.labels(method)
            for code in codes:
                self._requests.labels(method, code)

    def policies_changed(self, policy_set: PolicySetView) -> ActivationMeter:
        """Switch to the label sets of a policy set that is now in force, at the start or after a reload.

        Creates the label sets that are new, removes those of policies that are gone, and keeps the counts of all
        others. Returns the meter for the readings of requests that begin on this set; older requests keep theirs.
        """
        return self.policies_loaded(policy_set.policies, policy_set.watch)

    def policies_loaded(self, policies: Sequence[PolicyView], watch: WatchPlan) -> ActivationMeter:
        """Do the same as `policies_changed`, given the policies and the watch plan of the set."""
        self.policies.changed(policies)
        chosen = shown(labels.watched_by(policies), self._feature_limit)
        known = {f: float(self._density[f]) for f in features_of(chosen) if f < len(self._density)}
        meter = self._ledger.watch(watch)
        self._activations.show(chosen, known)
        return meter

    def reload_failed(self) -> None:
        """Count a failed attempt to load policies."""
        self.policies.reload_failed()

    def queue(self, name: str, limit: int, queued: Callable[[], int], running: Callable[[], int]) -> None:
        """Read the depth of a queue and the number of running requests at each scrape."""
        self._work.queue(name, limit, queued, running)

    def passes(self, passes: Callable[[], int]) -> None:
        """Read the number of forward passes of the engine at each scrape."""
        self._work.passes(passes)

    def cache(self, used: Callable[[], float]) -> None:
        """Read the share of the key-value cache that is in use at each scrape."""
        self._work.cache(used)

    def engine(self, *, separate: bool) -> None:
        """Set `engine_info`: whether every forward pass runs one request, or passes run many requests together."""
        self._engine.labels("separate" if separate else "continuous").set(1)

    def serving(self, serving: Callable[[], bool]) -> None:
        """Read at each scrape whether the health service says SERVING."""
        self._work.serving(serving)

    def built(self, version: str, digests: Digests) -> None:
        """Set `build_info` to this version and these digests, in place of earlier ones."""
        self._build.clear()
        self._build.labels(version, digests.model, digests.dictionary, digests.policies).set(1)

    def dictionary_measured(self, l0: float, explained_variance: float, norm_outliers: float) -> None:
        """Set the self-test's measurements of the dictionary on the running model; NaN means "not measured"."""
        self.health.measured(l0, explained_variance, norm_outliers)

    def dictionary_expected(
        self, l0: float | None, explained_variance: float | None, density: Sequence[float]
    ) -> None:
        """Set the values that the dictionary's own statistics say to expect. Call it before policies load.

        `density` holds, for every feature of the dictionary, the share of tokens on which it was active when its
        unit was measured: the baseline of drift.
        """
        self.health.expected(l0, explained_variance)
        self._density = density

    def call_ended(self, method: str, code: str, seconds: float) -> None:
        """Count a call that ended with a gRPC status after `seconds`."""
        trace = exemplar()
        self._requests.labels(method, code).inc(exemplar=trace)
        self._duration.labels(method).observe(seconds, exemplar=trace)

    def first_token(self, seconds: float) -> None:
        """Record the seconds from the arrival of a call to the first text of its generation."""
        self._first.observe(seconds, exemplar=exemplar())

    def rejected(self, reason: str) -> None:
        """Count a call that was refused before it ran; `reason` is one of REJECTIONS."""
        self._rejected.labels(reason).inc()

    def judged(self, verdict: Verdict) -> None:
        """Count a request that ended with this verdict, and the failures and suppressions in it."""
        coverage, trace = verdict.coverage, exemplar()
        self._truncated.inc(coverage.tokens_truncated)
        self._verdicts.labels(verdict.status.value, verdict.action.name.lower()).inc(exemplar=trace)
        for suppression in verdict.suppressions:
            self.policies.suppression_ended(suppression)
        if verdict.failure is None:
            return
        cause = verdict.failure.value
        self._failures.labels(cause).inc(exemplar=trace)
        self._unscored.labels(cause).inc(max(0, coverage.tokens_run - coverage.tokens_scored))
        if verdict.action is not Action.BLOCK:
            self._passed.labels(cause).inc(exemplar=trace)
        elif not verdict.rule_blocks:
            self._withheld.labels(cause).inc(exemplar=trace)

    def detected(self, detection: Detection, trace: Exemplar = None) -> None:
        """Count a rule that fired, with the trace of its request as exemplar."""
        self.policies.detected(detection, trace)

    def suppressed(self, policy: str, tokens: int) -> None:
        """Count tokens that ran while a policy clamped its features."""
        self.policies.suppressed(policy, tokens)

    def blocked(self, policy: str, trace: Exemplar = None) -> None:
        """Count a request that a policy blocked, with the request's trace as exemplar."""
        self.policies.blocked(policy, trace)
