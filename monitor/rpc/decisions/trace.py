"""Spans, events and attributes in the trace of a request. None of them contains text of the request.

Attributes `gen_ai.*` follow OpenTelemetry's conventions (https://opentelemetry.io/docs/specs/semconv/gen-ai/);
attributes `sae_monitor.*` are this project's own. OpenTelemetry itself is not imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monitor.records import Action, Detection, Mode, Phase
from monitor.telemetry.decisions.record import DecisionRecord
from monitor.telemetry.decisions.trail import Trail
from monitor.telemetry.tracing.context import Attribute, Trace

PROVIDER = "sae_monitor"


def operation(method: str, chat: bool) -> str:
    """Value of `gen_ai.operation.name`. The conventions have none for scoring, which is called `score` here."""
    if method == "Score":
        return "score"
    return "chat" if chat else "text_completion"


def attributes(
    made: DecisionRecord, *, model: str, name: str, prompt_tokens: int, sampling: Any
) -> dict[str, Attribute]:
    """Attributes of the request's span."""
    found: dict[str, Attribute] = {
        "gen_ai.operation.name": name,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": model,
        "gen_ai.response.model": model,
        "gen_ai.response.id": made.request_id,
        "gen_ai.usage.input_tokens": prompt_tokens,
        "gen_ai.usage.output_tokens": made.tokens_generated,
        "sae_monitor.status": made.status.value,
        "sae_monitor.action": made.action.name.lower(),
        "sae_monitor.outcome": made.outcome,
        "sae_monitor.detections": len(made.detections),
        "sae_monitor.tokens.run": made.coverage.tokens_run,
        "sae_monitor.tokens.scored": made.coverage.tokens_scored,
        "sae_monitor.digest.model": made.digests.model,
        "sae_monitor.digest.dictionary": made.digests.dictionary,
        "sae_monitor.digest.policies": made.digests.policies,
    }
    if made.finish:
        found["gen_ai.response.finish_reasons"] = [made.finish]
    optional = {
        "gen_ai.conversation.id": made.session,
        "sae_monitor.caller": made.caller,
        "sae_monitor.upstream_request_id": made.upstream_request_id,
        "sae_monitor.failure": "" if made.failure is None else made.failure.value,
    }
    return found | {key: value for key, value in optional.items() if value} | _sampling(sampling)


def _sampling(sampling: Any) -> dict[str, Attribute]:
    if sampling is None:
        return {}
    asked: Mapping[str, Any] = {
        "gen_ai.request.max_tokens": sampling.max_new_tokens,
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p,
        "gen_ai.request.top_k": sampling.top_k or None,
        "gen_ai.request.seed": sampling.seed,
    }
    return {key: value for key, value in asked.items() if value is not None}


def phases(trace: Trace, trail: Trail) -> None:
    """Add a child span for each phase of a request: `queue`, `prefill`, `decode` and `rules`.

    `rules` covers the time of prefill and decode; its attribute says how many seconds of it the rules took.
    """
    times = trail.times
    if not times.begun or not times.last:
        return
    admitted = times.admitted or times.begun
    trace.phase("queue", times.begun, admitted, {})
    read = times.read or times.last
    trace.phase("prefill", admitted, read, {"sae_monitor.tokens.scored": trail.tokens[Phase.PROMPT]})
    if written := trail.tokens[Phase.RESPONSE]:
        trace.phase("decode", read, times.last, {"sae_monitor.tokens.scored": written})
    trace.phase("rules", admitted, times.last, {"sae_monitor.rules.seconds": times.rules / 1e9})


def detections(trace: Trace, trail: Trail) -> None:
    """Add one event for each rule that fired, at the time at which it fired."""
    for at, found in list(trail.detections):
        trace.event("sae_monitor.detection", at, _detection(found))


_VERDICTS = {Action.BLOCK: "deny", Action.SUPPRESS: "modify", Action.ALERT: "warn", Action.ALLOW: "allow"}
"""Values of `gen_ai.security.verdict.type`, by what is done."""
_TARGETS = {Phase.PROMPT: "llm_input", Phase.RESPONSE: "llm_output"}


def findings(trace: Trace, made: DecisionRecord, trail: Trail) -> None:
    """Say the same in the names of OpenTelemetry's draft for guardrails, which may still change.

    Attributes `gen_ai.security.*` of the request's span, and an event `gen_ai.security.finding` for each detection
    (https://github.com/open-telemetry/semantic-conventions-genai/pull/427).
    """
    said: dict[str, Attribute] = {
        "gen_ai.security.guardrail.name": PROVIDER,
        "gen_ai.security.policy.version": made.digests.policies,
        "gen_ai.security.verdict.type": _VERDICTS[made.action],
        "gen_ai.security.action.type": made.action.name.lower(),
        "gen_ai.security.target.type": _TARGETS[Phase.RESPONSE if made.finish else Phase.PROMPT],
    }
    if made.failure is not None:
        said["gen_ai.security.verdict.reason"] = f"not scored: {made.failure.value}"
    trace.add(said)
    for at, found in list(trail.detections):
        trace.event("gen_ai.security.finding", at, _finding(found))


def _finding(found: Detection) -> dict[str, Attribute]:
    enforced = found.action if found.mode is Mode.ENFORCE else Action.ALLOW
    return {
        "gen_ai.security.guardrail.name": PROVIDER,
        "gen_ai.security.policy.name": found.policy,
        "gen_ai.security.policy.rule.id": found.rule,
        "gen_ai.security.verdict.type": _VERDICTS[enforced] if enforced is not Action.ALLOW else "audit",
        "gen_ai.security.target.type": _TARGETS[found.phase],
        "gen_ai.security.risk.finding": found.category,
        "gen_ai.security.risk.severity": found.severity.value,
        "gen_ai.security.risk.score": float(found.score),
    }


def _detection(found: Detection) -> dict[str, Attribute]:
    return {
        "sae_monitor.policy": found.policy,
        "sae_monitor.rule": found.rule,
        "sae_monitor.category": found.category,
        "sae_monitor.severity": found.severity.value,
        "sae_monitor.action": found.action.name.lower(),
        "sae_monitor.mode": found.mode.value,
        "sae_monitor.phase": found.phase.value,
        "sae_monitor.position": found.position,
        "sae_monitor.score": float(found.score),
        "sae_monitor.threshold": float(found.threshold),
    }
