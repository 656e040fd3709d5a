"""The extension object `sae_monitor` in answers: verdicts, digests, and the headers that say the same in short.

Names and words are those of the decision log: a field that is left out has its ordinary value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from monitor.records import (
    Action,
    Detection,
    Digests,
    ScoredTokens,
    Status,
    TokenTexts,
    Verdict,
    token_records,
)
from monitor.telemetry.decisions import codec

HEADER_PREFIX = "x-sae-monitor-"


def extension(request_id: str, verdicts: Sequence[Verdict], digests: Digests) -> dict[str, Any]:
    """The object for a whole answer: the strictest of its verdicts in short, then all, one for each choice."""
    return {
        "request_id": request_id,
        "status": _status(verdicts).value,
        "action": _action(verdicts).name.lower(),
        "matched": any(verdict.matched for verdict in verdicts),
        "verdicts": [verdict(found) for found in verdicts],
        "digests": codec.dump(digests),
    }


def verdict(found: Verdict) -> dict[str, Any]:
    """One verdict."""
    content: dict[str, Any] = codec.dump(found)
    content["matched"] = found.matched
    for written, suppression in zip(content.get("suppressions", ()), found.suppressions, strict=False):
        written["held"] = suppression.held
    return content


def detections(found: Iterable[Detection]) -> list[Any]:
    """Detections as they happen."""
    return [codec.dump(detection) for detection in found]


def tokens(parts: Iterable[ScoredTokens | None], token_texts: TokenTexts) -> list[Any]:
    """Scored tokens with the readings that are not zero."""
    return [codec.dump(record) for record in token_records(parts, token_texts)]


def headers(verdicts: Sequence[Verdict]) -> Mapping[str, str]:
    """The headers of a whole answer, for gateways that do not read bodies."""
    fired = {found.policy: None for verdict in verdicts for found in verdict.detections}
    return {
        f"{HEADER_PREFIX}status": _status(verdicts).value,
        f"{HEADER_PREFIX}action": _action(verdicts).name.lower(),
        f"{HEADER_PREFIX}matched": "true" if fired else "false",
        f"{HEADER_PREFIX}policies": ",".join(fired),
    }


def _status(verdicts: Sequence[Verdict]) -> Status:
    return Status.UNKNOWN if any(v.status is Status.UNKNOWN for v in verdicts) else Status.CHECKED


def _action(verdicts: Sequence[Verdict]) -> Action:
    return max(verdict.action for verdict in verdicts)
