"""The record of one decision, in memory and as JSON.

It contains no text: evidence consists of positions, scores and readings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from monitor.records import Action, Coverage, Detection, Digests, Failure, RuleScore, Status, Suppression
from monitor.telemetry.decisions import codec

SCHEMA = 1
"""Version of the schema. It goes up when a field changes its meaning or is removed, but not for new fields."""

KIND = "decision"
"""Kind of a line that contains the record of one request."""

OUTCOMES = ("answered", "refused", "failed", "cancelled")
"""How a request ended: with an answer, refused because it could not be monitored, with another error, or cancelled."""


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """The decision about one request: its caller, what ran, the detections, and the action that was taken."""

    request_id: str
    time: float
    """When it was decided, in seconds since 1970."""
    seconds: float
    """Seconds from arrival to decision."""
    method: str
    outcome: str
    """One of OUTCOMES."""
    status: Status
    action: Action
    digests: Digests
    coverage: Coverage
    detections: tuple[Detection, ...] = ()
    scores: tuple[RuleScore, ...] = ()
    suppressions: tuple[Suppression, ...] = ()
    failure: Failure | None = None
    finish: str = ""
    """Why a generation ended, as a value of `FinishReason`; empty for scoring."""
    tokens_generated: int = 0
    trace_id: str = ""
    session: str = ""
    caller: str = ""
    mode: str = ""
    """How the text of another server was held while it was scored: `hold`, `sample` or `end`; else empty."""
    upstream_request_id: str = ""
    """The id that another server gave to the request which it answered (`x-request-id`); empty where it gave none."""

    @property
    def notable(self) -> bool:
        """True where there is a detection, an action above `allow`, or a monitoring failure."""
        return bool(self.detections) or self.action > Action.ALLOW or self.status is Status.UNKNOWN


def without_text(detection: Detection) -> Detection:
    """The detection without token ids and texts of its evidence; positions, scores and readings stay."""
    return replace(detection, evidence=tuple(replace(e, token_id=0, text="") for e in detection.evidence))


def to_json(record: DecisionRecord) -> dict[str, Any]:
    """The record as the log contains it; fields with their default value are left out."""
    content = codec.dump(replace(record, detections=tuple(map(without_text, record.detections))))
    for found in content.get("detections", ()):
        for token in found.get("evidence", ()):
            del token["token_id"], token["text"]
    when = datetime.fromtimestamp(record.time, UTC).isoformat(timespec="microseconds")
    return {"schema": SCHEMA, "kind": KIND, **content, "time": when, "seconds": round(record.seconds, 6)}


def from_json(content: Mapping[str, Any]) -> DecisionRecord:
    """The record in a line of kind `decision`. Raises ValueError for a schema that this version cannot read."""
    if content.get("schema") != SCHEMA:
        raise ValueError(f"the record has schema {content.get('schema')!r}; this version reads {SCHEMA}")
    detections = [
        {**found, "evidence": [{"token_id": 0, "text": "", **e} for e in found.get("evidence", ())]}
        for found in content.get("detections", ())
    ]
    when = datetime.fromisoformat(str(content.get("time"))).timestamp()
    record: DecisionRecord = codec.load(DecisionRecord, {**content, "detections": detections, "time": when})
    return record
