"""The metered observer: counts what rules see and say, at the only place where all of it passes.

It wraps the rules of a policy set and hands everything on unchanged, so that every way in is counted alike. What it
fails to count changes no decision: the rules have seen the tokens by then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import structlog

from monitor.records import Action, Blocks, Decision, Mode, ObservedRequest, Observer
from monitor.telemetry.metrics.activations import ActivationMeter
from monitor.telemetry.metrics.labels import Exemplar, exemplar
from monitor.telemetry.metrics.metrics import Metrics

_log = structlog.get_logger(__name__)


class MeteredObserver:
    """An Observer that counts tokens, readings, detections, suppressed tokens and blocked requests.

    Monitoring failures are counted with the verdict: the rules find some of them only there.
    """

    def __init__(self, inner: Observer, metrics: Metrics, meter: ActivationMeter) -> None:
        self._inner, self._metrics, self._meter = inner, metrics, meter
        self._traces: dict[int, Exemplar] = {}
        """By slot, of requests that are traced."""
        self._suppressing: dict[int, tuple[str, ...]] = {}
        """By slot, the policies that clamp; of requests in which some do."""
        self._blocking: dict[int, set[str]] = {}
        """By slot, the policies that blocked; of requests in which some did."""
        self._missed = 0
        """How often something could not be counted."""

    def open(self, request: ObservedRequest) -> None:
        """A request begins. Called on the task that serves it: the trace that its samples lead to is read there."""
        self._traces.pop(request.slot, None)
        self._blocking.pop(request.slot, None)
        if (trace := exemplar()) is not None:
            self._traces[request.slot] = trace
        self._noted(request.slot, request.first)

    def observe_batch(self, blocks: Blocks) -> Mapping[int, Decision]:
        """After each forward."""
        decisions = self._inner.observe_batch(blocks)
        try:
            scored = blocks.scored(decisions)
            self._meter.observe(scored)
            if self._suppressing:
                self._count_suppressed(scored)
        except Exception as error:  # noqa: BLE001  (tokens that were judged stay judged)
            self._miss(error)
        for number, decision in decisions.items():
            self._noted(int(blocks.slots[number]), decision)
        return decisions

    def _noted(self, slot: int, decision: Decision) -> None:
        try:
            self._note(slot, decision)
        except Exception as error:  # noqa: BLE001  (as above, and the decisions of others are counted)
            self._miss(error)

    def _miss(self, error: Exception) -> None:
        self._missed += 1
        if self._missed & (self._missed - 1) == 0:  # the first time, and then ever more seldom
            _log.error("metrics miss what happened", times=self._missed, error=type(error).__name__)

    def _count_suppressed(self, blocks: Blocks) -> None:
        tokens: Counter[str] = Counter()
        for slot, count in zip(blocks.slots.tolist(), blocks.counts.tolist(), strict=True):
            for policy in self._suppressing.get(slot, ()):
                tokens[policy] += count
        for policy, count in tokens.items():
            self._metrics.suppressed(policy, count)

    def _note(self, slot: int, decision: Decision) -> None:
        if decision.suppressing:
            self._suppressing[slot] = decision.suppressing
        else:
            self._suppressing.pop(slot, None)
        trace = self._traces.get(slot)
        for detection in decision.detections:
            self._metrics.detected(detection, trace)
            if detection.mode is Mode.ENFORCE and detection.action is Action.BLOCK:
                before = self._blocking.setdefault(slot, set())
                if detection.policy not in before:
                    before.add(detection.policy)
                    self._metrics.blocked(detection.policy, trace)
