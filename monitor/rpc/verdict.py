"""The verdict: the last word on a request, what the rules say held against what actually ran.

In doubt it is UNKNOWN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from monitor.errors import MonitorError, MonitoringFailed
from monitor.policy.policy import Policy
from monitor.records import Action, Coverage, Detection, Failure, Mode, Phase, Status, Suppression, Verdict
from monitor.rpc.error_status import REFUSED_TEXT
from monitor.rpc.ports import RequestJudge
from monitor.telemetry.metrics.metrics import Metrics


def conclude(
    judge: RequestJudge,
    metrics: Metrics,
    coverage: Coverage,
    *,
    expected: int,
    error: MonitorError | None = None,
    suppressions: tuple[Suppression, ...] = (),
    judged: Callable[[Verdict], None] = lambda _: None,
) -> Verdict:
    """The verdict of a request that ended; counted.

    Args:
        judge: the rules at the end of the request.
        metrics: where the verdict is counted.
        coverage: tokens scored of tokens run.
        expected: tokens that had to run at least.
        error: what it wants the caller to see.
        suppressions: what became of the clamps of policies.
        judged: told the verdict, also where the caller will not see it.

    Raises:
        MonitoringFailed: tokens were not scored and a policy says `on_error: closed`.
        MonitorError: `error`, where it is about something else.
    """
    if error is not None and not isinstance(error, MonitoringFailed):
        raise error
    verdict = judge.verdict(coverage)
    if verdict.status is Status.CHECKED and coverage.tokens_run < expected:
        judge.failed(Failure.INCOMPLETE)
        verdict = judge.verdict(coverage)
    verdict = replace(verdict, suppressions=suppressions)
    metrics.judged(verdict)
    judged(verdict)
    if error is not None or _refused(verdict):
        raise MonitoringFailed(REFUSED_TEXT, verdict.failure or Failure.INCOMPLETE)
    return verdict


def shown(detections: Iterable[Detection], released: int) -> tuple[Detection, ...]:
    """Detections as a caller may see them: with neither text nor id of response tokens at or beyond `released`.

    The one place in which what was not released is taken out of what is.
    """
    return tuple(_below(found, released) for found in detections)


def _below(found: Detection, released: int) -> Detection:
    if found.phase is Phase.PROMPT or all(token.position < released for token in found.evidence):
        return found
    evidence = tuple(
        token if token.position < released else replace(token, token_id=0, text="")
        for token in found.evidence
    )
    return replace(found, evidence=evidence)


def refusal(policies: Sequence[Policy], verdict: Verdict) -> str:
    """What the first policy that blocked wants to be shown; empty where none did or it says nothing."""
    texts = {policy.name: policy.refusal for policy in policies}
    blocking = (d for d in verdict.detections if d.action is Action.BLOCK and d.mode is Mode.ENFORCE)
    return next((texts.get(found.policy, "") for found in blocking), "")


def _refused(verdict: Verdict) -> bool:
    """True where the request is blocked because it was not scored, and not because a rule fired."""
    return verdict.status is Status.UNKNOWN and verdict.action is Action.BLOCK and not verdict.rule_blocks
