"""Exceptions of a call: no server answers, or it answers with an error status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from monitor.errors import MonitorError, Violation

_DETAILS = "grpc-status-details-bin"


class Unreachable(MonitorError):
    """No server answers at the address."""

    code = "UNAVAILABLE"


class CallFailed(MonitorError):
    """The server answered a call with an error status."""

    def __init__(
        self,
        status: str,
        details: str,
        violations: Sequence[Violation] = (),
        retry_after: float | None = None,
        request_id: str = "",
    ) -> None:
        self.code = status
        """Name of the gRPC status, such as `INVALID_ARGUMENT`."""
        self.details = details
        """The message of the status."""
        self.violations = tuple(violations)
        """The wrong fields of the request, where the status is INVALID_ARGUMENT."""
        self.retry_after = retry_after
        """Seconds that the server asks to wait before the next try; None where it does not say."""
        self.request_id = request_id
        """Identifies the request in the server's log; empty where the server never saw it."""
        lines = [f"the server answered {status}: {details}"]
        lines += [f"  {v.field}: {v.description}" for v in self.violations]
        super().__init__("\n".join(lines))


def failure(error: grpc.RpcError) -> CallFailed:
    """The exception for a failed call of `grpc` or `grpc.aio`, with the details that the server gave."""
    bad, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    request = error_details_pb2.RequestInfo()
    found = _unpack(error, bad, retry, request)
    return CallFailed(
        error.code().name,
        error.details() or "no details",
        [Violation(v.field, v.description) for v in bad.field_violations],
        retry.retry_delay.ToNanoseconds() / 1e9 if retry in found else None,
        request.request_id,
    )


def _unpack(error: grpc.RpcError, *wanted: Message) -> list[Message]:
    """Fill the messages from the status's details, and return those that it contained."""
    trailers: Any = error.trailing_metadata()  # the stubs of grpc leave open what it holds
    packed = next((value for key, value in trailers or () if key == _DETAILS), b"")
    status = status_pb2.Status()
    try:
        status.ParseFromString(packed)
        return [message for detail in status.details for message in wanted if detail.Unpack(message)]
    except DecodeError:  # a proxy's own idea of details
        return []
