"""Decision records as messages, and what a watcher asks for as a test of records."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from monitor.records import Detection, Mode, Severity, Status
from monitor.rpc.wire import enums, responses
from monitor.rpc.wire.problems import Problems
from monitor.telemetry.decisions.record import DecisionRecord
from monitor.v1 import monitor_pb2 as pb

_RANK = {severity: rank for rank, severity in enumerate(Severity)}
_SEVERITY = {number: severity for severity, number in enums.SEVERITY.items()}


@dataclass(frozen=True, slots=True)
class WatchFilter:
    """Which records a watcher wants, and what of them."""

    policies: frozenset[str]
    """Empty: all."""
    minimum: Severity
    shadow: bool
    unknown: bool
    after: int | None

    def detections(self, record: DecisionRecord) -> tuple[Detection, ...]:
        """Those that pass the filters."""
        return tuple(found for found in record.detections if self._passes(found))

    def wants(self, record: DecisionRecord) -> bool:
        """True where something passes the filters, or nobody knows whether something should have."""
        return (self.unknown and record.status is Status.UNKNOWN) or bool(self.detections(record))

    def _passes(self, found: Detection) -> bool:
        if self.policies and found.policy not in self.policies:
            return False
        if found.mode is Mode.SHADOW and not self.shadow:
            return False
        return _RANK[found.severity] >= _RANK[self.minimum]


def watched(message: pb.WatchDetectionsRequest) -> WatchFilter:
    """What to send. BadRequest with every wrong field named."""
    problems = Problems()
    for index, name in enumerate(message.policies):
        if not name:
            problems.add(f"policies[{index}]", "is empty; write the name of a policy")
    asked = message.minimum_severity
    minimum = _SEVERITY.get(asked, Severity.LOW)
    if asked != pb.SEVERITY_UNSPECIFIED and asked not in _SEVERITY:
        problems.add("minimum_severity", "write SEVERITY_LOW, _MEDIUM, _HIGH or _CRITICAL, or leave it out")
    problems.raise_any()
    return WatchFilter(
        policies=frozenset(message.policies),
        minimum=minimum,
        shadow=message.include_shadow,
        unknown=message.include_unknown,
        after=message.after if message.HasField("after") else None,
    )


def response(
    seq: int, record: DecisionRecord, wanted: WatchFilter, dropped: int
) -> pb.WatchDetectionsResponse:
    """What a watcher sees of a record."""
    when = Timestamp()
    when.FromNanoseconds(round(record.time * 1e9))
    return pb.WatchDetectionsResponse(
        cursor=seq,
        dropped=dropped,
        time=when,
        request_id=record.request_id,
        trace_id=record.trace_id,
        session_id=record.session,
        caller=record.caller,
        method=record.method,
        outcome=record.outcome,
        status=enums.STATUS[record.status],
        failure=record.failure,
        action=enums.ACTION[record.action],
        detections=[responses.detection(found) for found in wanted.detections(record)],
        coverage=responses.coverage(record.coverage),
        digests=responses.digests(record.digests),
    )
