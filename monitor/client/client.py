"""A client of the sidecar: calls over gRPC, with errors that a person can read.

Knows the generated stub and status details. Does not know who runs the server or how answers are shown.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from monitor.client.credentials import NOBODY, Identity
from monitor.client.errors import CallFailed, Unreachable
from monitor.errors import Violation
from monitor.v1 import monitor_pb2 as pb
from monitor.v1 import monitor_pb2_grpc

CONNECT_SECONDS = 5.0
MAX_RESPONSE_BYTES = 64 * 1024 * 1024
"""Readings of every token of a long context are larger than gRPC's default limit of 4 MiB."""


@dataclass(frozen=True, slots=True)
class Client:
    """The calls of `MonitorService` and of `grpc.health.v1`; every failure is a `CallFailed`."""

    channel: grpc.Channel
    timeout: float
    """Seconds per call."""

    @property
    def _stub(self) -> Any:
        return monitor_pb2_grpc.MonitorServiceStub(self.channel)

    def score(self, request: pb.ScoreRequest) -> pb.ScoreResponse:
        """A verdict on a text."""
        answer: pb.ScoreResponse = self._unary(self._stub.Score, request)
        return answer

    def generate(self, request: pb.GenerateRequest) -> pb.GenerateResponse:
        """A generation in one piece."""
        answer: pb.GenerateResponse = self._unary(self._stub.Generate, request)
        return answer

    def generate_stream(self, request: pb.GenerateStreamRequest) -> Iterator[pb.GenerateStreamResponse]:
        """A generation as it is released; closing the iterator cancels the call."""
        call = self._stub.GenerateStream(request, timeout=self.timeout)
        try:
            yield from call
        except grpc.RpcError as error:
            raise failure(error) from error
        finally:
            call.cancel()

    def policies(self) -> pb.ListPoliciesResponse:
        """The loaded policies."""
        answer: pb.ListPoliciesResponse = self._unary(self._stub.ListPolicies, pb.ListPoliciesRequest())
        return answer

    def reload(self) -> pb.ReloadPoliciesResponse:
        """Have the policy files read again."""
        answer: pb.ReloadPoliciesResponse = self._unary(self._stub.ReloadPolicies, pb.ReloadPoliciesRequest())
        return answer

    def health(self) -> str:
        """The name of the server's health status, such as `SERVING`."""
        stub = health_pb2_grpc.HealthStub(self.channel)
        answer = self._unary(stub.Check, health_pb2.HealthCheckRequest())
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    def _unary(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=self.timeout)
        except grpc.RpcError as error:
            raise failure(error) from error


@contextmanager
def connect(
    address: str, timeout: float, connect_seconds: float = CONNECT_SECONDS, identity: Identity = NOBODY
) -> Iterator[Client]:
    """A client of the server at `host:port`; `Unreachable` where nothing answers within `connect_seconds`."""
    channel = identity.channel(address, channel_options(address))
    try:
        _await_ready(channel, address, connect_seconds)
        yield Client(identity.signed(channel), timeout)
    finally:
        channel.close()


def channel_options(address: str) -> list[tuple[str, int]]:
    """Large answers, and no proxy between this process and a server on the same machine."""
    host = address.rpartition(":")[0].strip("[]")
    local = host in ("localhost", "::1") or host.startswith("127.")
    limit = ("grpc.max_receive_message_length", MAX_RESPONSE_BYTES)
    return [limit, ("grpc.enable_http_proxy", 0)] if local else [limit]


def _await_ready(channel: grpc.Channel, address: str, seconds: float) -> None:
    """Wait for the connection; a refused one is reported at once instead of being tried again."""
    settled = threading.Event()
    seen: list[grpc.ChannelConnectivity] = []

    def note(state: grpc.ChannelConnectivity) -> None:
        if state in (grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE):
            seen.append(state)
            settled.set()

    channel.subscribe(note, try_to_connect=True)
    try:
        settled.wait(seconds)
    finally:
        channel.unsubscribe(note)
    if not seen:
        raise Unreachable(f"no answer from {address} within {seconds:g} seconds")
    if seen[0] is not grpc.ChannelConnectivity.READY:
        raise Unreachable(f"cannot connect to {address}; is `sae-monitor serve` running there?")


def failure(error: grpc.RpcError) -> CallFailed:
    """The status of a failed call with the field names that the server gave."""
    return CallFailed(error.code().name, error.details() or "no details", _violations(error))


def _violations(error: grpc.RpcError) -> tuple[Violation, ...]:
    status = rpc_status.from_call(error)
    found: list[Violation] = []
    for detail in status.details if status else ():
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            found += [Violation(v.field, v.description) for v in bad.field_violations]
    return tuple(found)
