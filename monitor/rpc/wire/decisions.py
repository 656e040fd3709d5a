"""Convert messages of WatchDetections: a request into a filter of decision records, and records into responses."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp

from monitor.records import Detection, Mode, Severity, Status
from monitor.rpc.wire import enums, responses
from monitor.rpc.wire.problems import Problems
from monitor.telemetry.decisions.record import DecisionRecord
from monitor.v1 import monitor_pb2 as pb

MOST_POLICIES = 1000
"""Maximum number of policies that one stream names."""
_RANK = {severity: rank for rank, severity in enumerate(Severity)}
_SEVERITY = {number: severity for severity, number in enums.SEVERITY.items()}
_CURSOR = re.compile(r"(?P<log>[0-9a-f]{1,32})-(?P<record>[0-9]{1,16})")
_BEGINNING = "0"


@dataclass(frozen=True, slots=True)
class Cursor:
    """A record of one log, as clients keep it to go on behind it: `LOG-NUMBER`, or `0` for the beginning of any log."""

    log: str
    """Name of the log; empty for the beginning of any."""
    record: int
    """Sequence number of the record; 0 for the beginning."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """The cursor that a text stands for. Raises ValueError where it is none."""
        if text == _BEGINNING:
            return cls("", 0)
        found = _CURSOR.fullmatch(text)
        if found is None:
            raise ValueError(
                "is no cursor; write the `cursor` of an event, or 0 for the beginning of the log"
            )
        return cls(found["log"], int(found["record"]))

    def __str__(self) -> str:
        return f"{self.log}-{self.record}" if self.log else _BEGINNING


@dataclass(frozen=True, slots=True)
class WatchFilter:
    """Which decision records a client of WatchDetections wants, and which of their detections."""

    policies: frozenset[str]
    """Names of policies; empty for all."""
    minimum: Severity
    """The lowest severity of detections."""
    shadow: bool
    """Whether detections of rules in shadow mode count."""
    unknown: bool
    """Whether requests that could not be scored in full are wanted."""
    after: Cursor | None
    """The record after which to begin; None for live records only."""

    @property
    def kind(self) -> Hashable:
        """Equal for filters that let the same through."""
        return self.policies, self.minimum, self.shadow, self.unknown

    def detections(self, record: DecisionRecord) -> tuple[Detection, ...]:
        """The detections of a record that pass the filter."""
        return tuple(found for found in record.detections if self._passes(found))

    def wants(self, record: DecisionRecord) -> bool:
        """True where a detection passes the filter, or where the request could not be scored in full."""
        return (self.unknown and record.status is Status.UNKNOWN) or bool(self.detections(record))

    def _passes(self, found: Detection) -> bool:
        if self.policies and found.policy not in self.policies:
            return False
        if found.mode is Mode.SHADOW and not self.shadow:
            return False
        return _RANK[found.severity] >= _RANK[self.minimum]


def watched(message: pb.WatchDetectionsRequest) -> WatchFilter:
    """Read a request. Raises BadRequest that names every wrong field."""
    problems = Problems()
    if len(message.policies) > MOST_POLICIES:
        problems.add("policies", f"has {len(message.policies)} names; write at most {MOST_POLICIES}")
        problems.raise_any()
    for index, name in enumerate(message.policies):
        if not name:
            problems.add(f"policies[{index}]", "is empty; write the name of a policy")
    asked = message.minimum_severity
    minimum = _SEVERITY.get(asked, Severity.LOW)
    if asked != pb.SEVERITY_UNSPECIFIED and asked not in _SEVERITY:
        problems.add("minimum_severity", "write SEVERITY_LOW, _MEDIUM, _HIGH or _CRITICAL, or leave it out")
    after = None
    if message.HasField("after"):
        try:
            after = Cursor.parse(message.after)
        except ValueError as error:
            problems.add("after", str(error))
    problems.raise_any()
    return WatchFilter(
        policies=frozenset(message.policies),
        minimum=minimum,
        shadow=message.include_shadow,
        unknown=message.include_unknown,
        after=after,
    )


def request(
    policies: Sequence[str], *, shadow: bool, unknown: bool, after: str | None
) -> pb.WatchDetectionsRequest:
    """The message by which a front door asks for records; `after` is a cursor, None for live records only."""
    message = pb.WatchDetectionsRequest(policies=policies, include_shadow=shadow, include_unknown=unknown)
    if after is not None:
        message.after = after
    return message


def as_json(message: pb.WatchDetectionsResponse) -> dict[str, Any]:
    """An answer as JSON, with the names of the fields as they are in the .proto file."""
    return MessageToDict(message, preserving_proto_field_name=True)


def response(
    at: Cursor | None, record: DecisionRecord, wanted: WatchFilter, dropped: int
) -> pb.WatchDetectionsResponse:
    """The message for a record. `at` is its place in the log, None without one.

    `dropped` is the number of records that the stream has missed so far.
    """
    when = Timestamp()
    when.FromNanoseconds(round(record.time * 1e9))
    return pb.WatchDetectionsResponse(
        cursor=str(at) if at is not None else "",
        record=at.record if at is not None else 0,
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
