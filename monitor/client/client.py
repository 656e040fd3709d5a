"""The blocking client: calls of `MonitorService` and of `grpc.health.v1`, with answers as protobuf messages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, Unpack

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from monitor.client.channel import Destination, Pem
from monitor.client.errors import Unreachable, failure
from monitor.client.requests import (
    GenerateOptions,
    InputOptions,
    Prompt,
    as_generation,
    as_input,
    as_severity,
)
from monitor.v1 import monitor_pb2 as pb
from monitor.v1 import monitor_pb2_grpc

CALL_SECONDS = 600.0
CONNECT_SECONDS = 5.0
Event = TypeVar("Event")


class EventStream(Generic[Event]):
    """The events of a call, as they come. Leaving its `with` block, or `cancel`, ends the call."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._cancelled = False

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        try:
            event: Event = next(self._call)
        except grpc.RpcError as error:
            if self._cancelled and error.code() is grpc.StatusCode.CANCELLED:
                raise StopIteration from None
            raise failure(error) from error
        return event

    def cancel(self) -> None:
        """End the call: the server stops at its next forward pass, and iterating ends."""
        self._cancelled = True
        self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()


class Client:
    """The calls of a server. Safe to share between threads; close it, or use it as a context manager.

    Every method raises `CallFailed` where the server answers with an error status, and takes `timeout` in seconds where
    the client's own should not hold.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str = "",
        ca: Pem | None = None,
        certificate: Pem | None = None,
        key: Pem | None = None,
        tls: bool = False,
        timeout: float | None = CALL_SECONDS,
        retries: int = 3,
    ) -> None:
        """Nothing is sent before the first call.

        Args:
            address: `host:port`.
            token: What the server knows this caller by.
            ca: Certificate authorities that the server's certificate is checked against; calls then use TLS.
            certificate: This client's certificate, for servers that ask for one, with its `key`.
            key: The private key of `certificate`.
            tls: Use TLS with the authorities that gRPC brings, where `ca` is not given.
            timeout: Longest time for a call in seconds; None sets no limit.
            retries: How often a call is tried again that the server turned away, 0 to 4.
        """
        destination = Destination(address, token, ca, certificate, key, tls, retries)
        credentials = destination.credentials()
        self._address, self._metadata, self._timeout = address, destination.metadata, timeout
        self._channel = (
            grpc.insecure_channel(address, destination.options())
            if credentials is None
            else grpc.secure_channel(address, credentials, destination.options())
        )
        self._calls: Any = monitor_pb2_grpc.MonitorServiceStub(self._channel)
        self._health: Any = health_pb2_grpc.HealthStub(self._channel)

    def score(
        self,
        prompt: Prompt,
        *,
        include_tokens: bool = False,
        timeout: float | None = None,
        **options: Unpack[InputOptions],
    ) -> pb.ScoreResponse:
        """A verdict on a text or a conversation; nothing is generated."""
        request = pb.ScoreRequest(input=as_input(prompt, **options), include_tokens=include_tokens)
        answer: pb.ScoreResponse = self._unary(self._calls.Score, request, timeout)
        return answer

    def generate(
        self,
        prompt: Prompt | pb.Generation,
        *,
        timeout: float | None = None,
        **options: Unpack[GenerateOptions],
    ) -> pb.GenerateResponse:
        """A generation in one piece, with the verdict on prompt and response."""
        request = pb.GenerateRequest(generation=as_generation(prompt, **options))
        answer: pb.GenerateResponse = self._unary(self._calls.Generate, request, timeout)
        return answer

    def generate_stream(
        self,
        prompt: Prompt | pb.Generation,
        *,
        timeout: float | None = None,
        **options: Unpack[GenerateOptions],
    ) -> EventStream[pb.GenerateStreamResponse]:
        """A generation as it is released: events with a `chunk`, a `detection` or, last, the `final` verdict."""
        request = pb.GenerateStreamRequest(generation=as_generation(prompt, **options))
        return self._stream(self._calls.GenerateStream, request, timeout or self._timeout)

    def inspect(
        self,
        prompt: Prompt,
        *,
        top_k: int | None = None,
        timeout: float | None = None,
        **options: Unpack[InputOptions],
    ) -> pb.InspectResponse:
        """The strongest features of every token, `top_k` of them (10 unless given)."""
        request = pb.InspectRequest(input=as_input(prompt, **options), top_k=top_k)
        answer: pb.InspectResponse = self._unary(self._calls.Inspect, request, timeout)
        return answer

    def watch_detections(
        self,
        *,
        policies: Iterable[str] = (),
        minimum_severity: str = "",
        include_shadow: bool = False,
        include_unknown: bool = False,
        after: int | None = None,
        timeout: float | None = None,
    ) -> EventStream[pb.WatchDetectionsResponse]:
        """What is detected in everybody's requests, as it is decided, until the server's longest call is over.

        Call again with the last event's `cursor` as `after` to go on without a gap.

        Args:
            policies: Names; all where none is given.
            minimum_severity: `low`, `medium`, `high` or `critical`; all where it is empty.
            include_shadow: Also what rules in shadow mode would have done.
            include_unknown: Also requests that could not be checked.
            after: Begin behind this record of the decision log; 0 is its beginning. Default: from now on.
            timeout: Seconds after which this side ends the stream.
        """
        request = pb.WatchDetectionsRequest(
            policies=policies,
            minimum_severity=as_severity(minimum_severity),
            include_shadow=include_shadow,
            include_unknown=include_unknown,
            after=after,
        )
        return self._stream(self._calls.WatchDetections, request, timeout)

    def policies(self, *, timeout: float | None = None) -> pb.ListPoliciesResponse:
        """The policies that are loaded, with their rules and clamps."""
        answer: pb.ListPoliciesResponse = self._unary(
            self._calls.ListPolicies, pb.ListPoliciesRequest(), timeout
        )
        return answer

    def reload(self, *, timeout: float | None = None) -> pb.ReloadPoliciesResponse:
        """Have the server read its policy files again. `CallFailed` where they are wrong; the old ones then stay."""
        answer: pb.ReloadPoliciesResponse = self._unary(
            self._calls.ReloadPolicies, pb.ReloadPoliciesRequest(), timeout
        )
        return answer

    def health(self, *, timeout: float | None = None) -> str:
        """The server's state in its health service: `SERVING` or `NOT_SERVING`."""
        answer = self._unary(self._health.Check, health_pb2.HealthCheckRequest(), timeout)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    def wait_until_connected(self, seconds: float = CONNECT_SECONDS) -> None:
        """Open the connection now. `Unreachable` where it is refused, or takes longer than this."""
        settled, seen = threading.Event(), list[grpc.ChannelConnectivity]()

        def note(state: grpc.ChannelConnectivity) -> None:
            if state in (grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE):
                seen.append(state)
                settled.set()

        self._channel.subscribe(note, try_to_connect=True)
        try:
            settled.wait(seconds)
        finally:
            self._channel.unsubscribe(note)
        if not seen:
            raise Unreachable(f"no answer from {self._address} within {seconds:g} seconds")
        if seen[0] is not grpc.ChannelConnectivity.READY:
            raise refused(self._address)

    def close(self) -> None:
        """Close the connection; calls in progress end."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _unary(self, method: Callable[..., Any], request: Any, timeout: float | None) -> Any:
        try:
            return method(request, timeout=timeout or self._timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise failure(error) from error

    def _stream(self, method: Callable[..., Any], request: Any, timeout: float | None) -> EventStream[Any]:
        return EventStream(method(request, timeout=timeout, metadata=self._metadata))


def refused(address: str) -> Unreachable:
    """The error for a connection that nobody takes."""
    return Unreachable(f"cannot connect to {address}; is `sae-monitor serve` running there?")


def connect(
    address: str,
    *,
    token: str = "",
    ca: Pem | None = None,
    certificate: Pem | None = None,
    key: Pem | None = None,
    tls: bool = False,
    timeout: float | None = CALL_SECONDS,
    retries: int = 3,
    connect_timeout: float = CONNECT_SECONDS,
) -> Client:
    """A `Client` that is connected. Raises `Unreachable` where nothing answers within `connect_timeout` seconds."""
    client = Client(
        address,
        token=token,
        ca=ca,
        certificate=certificate,
        key=key,
        tls=tls,
        timeout=timeout,
        retries=retries,
    )
    try:
        client.wait_until_connected(connect_timeout)
    except BaseException:
        client.close()
        raise
    return client
