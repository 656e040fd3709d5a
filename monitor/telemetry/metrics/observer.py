"""Counting what rules see and say, for one request, at the only place where all of it passes.

Wraps an Observer and hands everything on unchanged, so that every API is counted alike. Does not know how the
rules decide, nor who runs the model. Make it on the task that serves the request: the trace that its samples lead
to is read there.
"""

from __future__ import annotations

from collections.abc import Sequence

from monitor.records import Action, Clamp, Decision, Mode, Observer, TokenBlock
from monitor.telemetry.metrics.activations import ActivationMeter
from monitor.telemetry.metrics.labels import PolicyView, exemplar
from monitor.telemetry.metrics.metrics import Metrics


class MeteredObserver:
    """An Observer that counts tokens, readings, detections, suppressed tokens and blocked requests.

    Monitoring failures are counted with the verdict: the rules find some of them only there.
    """

    def __init__(
        self, inner: Observer, metrics: Metrics, meter: ActivationMeter, policies: Sequence[PolicyView]
    ) -> None:
        self._inner = inner
        self._metrics = metrics
        self._meter = meter
        self._policies = policies
        self._trace = exemplar()
        self._suppressing: dict[str, None] = {}
        self._named = False
        """The rules say by name who suppresses."""
        self._told = False
        """True once the rules said who suppresses: then what they say holds, releases included."""
        self._blocking: set[str] = set()

    @property
    def lead(self) -> object:
        """What scores blocks of several requests together; None where nothing does."""
        return getattr(self._inner, "lead", None)

    def begin(self) -> Decision:
        """Before the first forward."""
        decision = self._inner.begin()
        clamped = {clamp.feature for clamp in decision.clamps}
        for policy in self._policies:
            if policy.clamps and clamped.issuperset(_features(policy.clamps)):
                self._suppressing[policy.name] = None
        return self._noted(decision)

    def observe(self, block: TokenBlock) -> Decision:
        """After each forward."""
        self._meter.observe(block)
        for policy in self._suppressing:
            self._metrics.suppressed(policy, len(block.token_ids))
        return self._noted(self._inner.observe(block))

    def failed(self, cause: str) -> Decision:
        """Tokens could not be scored."""
        return self._noted(self._inner.failed(cause))

    def _noted(self, decision: Decision) -> Decision:
        if decision.suppressing or self._named:
            self._named, self._suppressing = True, dict.fromkeys(decision.suppressing)
        for detection in decision.detections:
            self._metrics.detected(detection, self._trace)
            if detection.mode is not Mode.ENFORCE:
                continue
            if detection.action is Action.SUPPRESS:
                self._suppressing[detection.policy] = None
            elif detection.action is Action.BLOCK and detection.policy not in self._blocking:
                self._blocking.add(detection.policy)
                self._metrics.blocked(detection.policy, self._trace)
        if decision.suppressing or self._told:
            self._told = True
            self._suppressing = dict.fromkeys(decision.suppressing)
        return decision


def _features(clamps: Sequence[Clamp]) -> set[int]:
    return {clamp.feature for clamp in clamps}
