"""The blocking client: calls of `MonitorService` and of `grpc.health.v1`, with answers as protobuf messages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, Unpack

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from monitor.client.channel import Destination, Pem, await_end_of_watch
from monitor.client.errors import Unreachable, failure
from monitor.client.pieces import StreamOptions, beginning
from monitor.client.requests import (
    GenerateOptions,
    InputOptions,
    Prompt,
    as_generation,
    as_input,
    as_severity,
)
from monitor.client.score_stream import ScoreStream
from monitor.v1 import monitor_pb2 as pb
from monitor.v1 import monitor_pb2_grpc

CALL_SECONDS = 600.0
CONNECT_SECONDS = 5.0
Event = TypeVar("Event")


class EventStream(Generic[Event]):
    """Iterates over the events of a call as they arrive. `cancel`, or leaving its `with` block, ends the call."""

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
        """End the call. The server stops the request at its next forward pass, and the iteration ends."""
        self._cancelled = True
        self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()


class Client:
    """Calls a server. Threads can share a client. Close it, or use it as a context manager.

    Every method raises `CallFailed` where the server answers with an error status. `timeout`, in seconds, replaces the
    client's own for one call.
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
        """Prepare a connection, which is opened at the first call.

        Args:
            address: `host:port`.
            token: Token of this caller, as made by `sae-monitor token new`; empty for servers without authentication.
            ca: Certificate authorities that the server's certificate is checked against; calls then use TLS.
            certificate: This client's certificate, for servers that ask for one, with its `key`.
            key: The private key of `certificate`.
            tls: Use TLS even without `ca`; the certificate authorities are then those that gRPC comes with.
            timeout: Deadline of each call in seconds; None sets none. `watch_detections` has none of its own accord.
            retries: Number of further tries of a call that the server refuses, 0 to 4.
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
        """Score a text or a conversation and return the verdict. Nothing is generated."""
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
        """Generate a response and return it whole, with the verdict on prompt and response."""
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
        """Generate a response as a stream of events: a `chunk`, a `detection` or, at the end, the `final` verdict."""
        request = pb.GenerateStreamRequest(generation=as_generation(prompt, **options))
        return self._stream(
            self._calls.GenerateStream, request, self._timeout if timeout is None else timeout
        )

    def inspect(
        self,
        prompt: Prompt,
        *,
        top_k: int | None = None,
        timeout: float | None = None,
        **options: Unpack[InputOptions],
    ) -> pb.InspectResponse:
        """Return the `top_k` strongest features of every token (10 unless given)."""
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
        after: str | None = None,
        timeout: float | None = None,
    ) -> EventStream[pb.WatchDetectionsResponse]:
        """Stream what is detected in the requests of all callers, until the server's `max_call_seconds` are over.

        To continue without a gap, call again with the last event's `cursor` as `after`.

        Args:
            policies: Names of the policies to watch; all where none is given.
            minimum_severity: Lowest severity: `low`, `medium`, `high` or `critical`; all where it is empty.
            include_shadow: Include detections of rules in shadow mode.
            include_unknown: Include requests that could not be scored in full.
            after: The `cursor` of an event: begin after it; "0" begins with the oldest record. Default: new ones.
            timeout: Deadline in seconds, at which the stream ends with `CallFailed` (DEADLINE_EXCEEDED). Default: none.
        """
        request = pb.WatchDetectionsRequest(
            policies=policies,
            minimum_severity=as_severity(minimum_severity),
            include_shadow=include_shadow,
            include_unknown=include_unknown,
            after=after,
        )
        return self._stream(self._calls.WatchDetections, request, timeout)

    def score_stream(
        self,
        prompt: Prompt | None = None,
        *,
        timeout: float | None = None,
        **options: Unpack[StreamOptions],
    ) -> ScoreStream:
        """Have what another server is asked and writes scored, while it writes it.

        Without a prompt its pieces are sent by `ask`. The timeout is that of the whole call.
        """
        return ScoreStream(
            self._calls.ScoreStream,
            beginning(prompt, options),
            timeout=self._timeout if timeout is None else timeout,
            metadata=self._metadata,
        )

    def policies(self, *, timeout: float | None = None) -> pb.ListPoliciesResponse:
        """Return the loaded policies with their rules and clamps."""
        answer: pb.ListPoliciesResponse = self._unary(
            self._calls.ListPolicies, pb.ListPoliciesRequest(), timeout
        )
        return answer

    def reload(self, *, timeout: float | None = None) -> pb.ReloadPoliciesResponse:
        """Have the server load its policy files again. If they are wrong, it keeps the old set: raises `CallFailed`."""
        answer: pb.ReloadPoliciesResponse = self._unary(
            self._calls.ReloadPolicies, pb.ReloadPoliciesRequest(), timeout
        )
        return answer

    def health(self, *, timeout: float | None = None) -> str:
        """Return the status that the health service gives: `SERVING` or `NOT_SERVING`."""
        answer = self._unary(self._health.Check, health_pb2.HealthCheckRequest(), timeout)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    def wait_until_connected(self, seconds: float = CONNECT_SECONDS) -> None:
        """Open the connection now. Raises `Unreachable` where it is refused, or takes longer than `seconds`."""
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
        if seen and seen[0] is grpc.ChannelConnectivity.READY:
            return
        # Callers close a client that does not connect at once.
        await_end_of_watch(self._channel)
        if not seen:
            raise Unreachable(f"no answer from {self._address} within {seconds:g} seconds")
        raise refused(self._address)

    def close(self) -> None:
        """Close the connection and end its calls in progress."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _unary(self, method: Callable[..., Any], request: Any, timeout: float | None) -> Any:
        try:
            return method(
                request, timeout=self._timeout if timeout is None else timeout, metadata=self._metadata
            )
        except grpc.RpcError as error:
            raise failure(error) from error

    def _stream(self, method: Callable[..., Any], request: Any, timeout: float | None) -> EventStream[Any]:
        return EventStream(method(request, timeout=timeout, metadata=self._metadata))


def refused(address: str) -> Unreachable:
    """The error for a connection that is refused."""
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
    """Connect a `Client`. Raises `Unreachable` where no server answers within `connect_timeout` seconds."""
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
