"""Errors as callers see them: google.rpc.Status with details.

An exception from outside the project's own tree becomes INTERNAL with a fixed text, because its text may quote a
prompt.
"""

from __future__ import annotations

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from monitor.errors import (
    BadRequest,
    MonitorError,
    MonitoringFailed,
    NotFound,
    Overloaded,
    PermissionDenied,
    TooLong,
    TooSlow,
    Unauthenticated,
    Unavailable,
)

DOMAIN = "sae-monitor"

REASONS: dict[type[MonitorError], str] = {
    TooLong: "TOO_LONG",
    BadRequest: "BAD_REQUEST",
    NotFound: "NOT_FOUND",
    Overloaded: "OVERLOADED",
    Unavailable: "UNAVAILABLE",
    Unauthenticated: "UNAUTHENTICATED",
    PermissionDenied: "PERMISSION_DENIED",
    TooSlow: "TOO_SLOW",
    MonitoringFailed: "MONITORING_FAILED",
}
"""Reasons in google.rpc.ErrorInfo, by exception; any other exception is INTERNAL."""

INTERNAL_TEXT = "internal error; the server's log has it under this request id"
REFUSED_TEXT = "the request could not be served"
"""What a caller is told where monitoring failed. It names neither what failed nor the policy that refused."""

# A status is sent in HTTP/2 trailers, of which clients accept 8 KiB by default.
_MOST_VIOLATIONS = 8
_LONGEST_TEXT = 512


def status_of(error: BaseException, request_id: str) -> status_pb2.Status:
    """The status that a caller sees for an exception."""
    if not isinstance(error, MonitorError) or error.code == MonitorError.code:
        return _status("INTERNAL", INTERNAL_TEXT, "INTERNAL", request_id)
    reason = next((name for kind, name in REASONS.items() if isinstance(error, kind)), "INTERNAL")
    text = REFUSED_TEXT if isinstance(error, MonitoringFailed) else _short(str(error))
    return _status(error.code, text, reason, request_id, *_details(error))


def grpc_status(status: status_pb2.Status) -> grpc.Status:
    """The status as `abort_with_status` takes it; a retry delay also stands where gRPC's own retries look for it."""
    converted = rpc_status.to_status(status)
    retry = error_details_pb2.RetryInfo()
    if any(detail.Unpack(retry) for detail in status.details):
        pushback = ("grpc-retry-pushback-ms", str(retry.retry_delay.ToMilliseconds()))
        converted = converted._replace(trailing_metadata=(*converted.trailing_metadata, pushback))
    found: grpc.Status = converted
    return found


def _status(code: str, text: str, reason: str, request_id: str, *details: Message) -> status_pb2.Status:
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN)
    request = error_details_pb2.RequestInfo(request_id=request_id)
    packed = [any_pb2.Any() for _ in range(2 + len(details))]
    for slot, detail in zip(packed, (info, request, *details), strict=True):
        slot.Pack(detail)
    return status_pb2.Status(code=code_pb2.Code.Value(code), message=text, details=packed)


def _details(error: MonitorError) -> list[Message]:
    if isinstance(error, BadRequest):
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=v.field, description=_short(v.description))
            for v in error.violations[:_MOST_VIOLATIONS]
        ]
        return [error_details_pb2.BadRequest(field_violations=violations)]
    if isinstance(error, Overloaded):
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(round(error.retry_after * 1e9))
        return [error_details_pb2.RetryInfo(retry_delay=delay)]
    return []


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"
