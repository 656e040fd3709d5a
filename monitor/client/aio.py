"""The client for asyncio, with the same methods as `Client`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, Unpack

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from monitor.client.channel import Destination, Pem
from monitor.client.client import CALL_SECONDS, CONNECT_SECONDS, refused
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
from monitor.client.score_stream import AsyncScoreStream
from monitor.v1 import monitor_pb2 as pb
from monitor.v1 import monitor_pb2_grpc

Event = TypeVar("Event")


class AsyncEventStream(Generic[Event]):
    """Iterates over the events of a call as they arrive. `cancel`, or leaving its `async with` block, ends the call."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._events = aiter(call)
        self._cancelled = False

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        if self._cancelled:
            raise StopAsyncIteration
        try:
            event: Event = await anext(self._events)
        except grpc.RpcError as error:
            raise failure(error) from error
        except asyncio.CancelledError:
            if self._cancelled:  # by `cancel`, and not the task that iterates
                raise StopAsyncIteration from None
            raise
        return event

    def cancel(self) -> None:
        """End the call. The server stops the request at its next forward pass, and the iteration ends."""
        self._cancelled = True
        self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()


class AsyncClient:
    """Calls a server, for asyncio. Close it, or use it with `async with`.

    Arguments and errors are those of `Client`. Create it inside a running event loop.
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
        destination = Destination(address, token, ca, certificate, key, tls, retries)
        credentials = destination.credentials()
        self._address, self._metadata, self._timeout = address, destination.metadata, timeout
        self._channel = (
            grpc.aio.insecure_channel(address, destination.options())
            if credentials is None
            else grpc.aio.secure_channel(address, credentials, destination.options())
        )
        self._calls: Any = monitor_pb2_grpc.MonitorServiceStub(self._channel)
        self._health: Any = health_pb2_grpc.HealthStub(self._channel)

    async def score(
        self,
        prompt: Prompt,
        *,
        include_tokens: bool = False,
        timeout: float | None = None,
        **options: Unpack[InputOptions],
    ) -> pb.ScoreResponse:
        """Score a text or a conversation and return the verdict. Nothing is generated."""
        request = pb.ScoreRequest(input=as_input(prompt, **options), include_tokens=include_tokens)
        answer: pb.ScoreResponse = await self._unary(self._calls.Score, request, timeout)
        return answer

    async def generate(
        self,
        prompt: Prompt | pb.Generation,
        *,
        timeout: float | None = None,
        **options: Unpack[GenerateOptions],
    ) -> pb.GenerateResponse:
        """Generate a response and return it whole, with the verdict on prompt and response."""
        request = pb.GenerateRequest(generation=as_generation(prompt, **options))
        answer: pb.GenerateResponse = await self._unary(self._calls.Generate, request, timeout)
        return answer

    def generate_stream(
        self,
        prompt: Prompt | pb.Generation,
        *,
        timeout: float | None = None,
        **options: Unpack[GenerateOptions],
    ) -> AsyncEventStream[pb.GenerateStreamResponse]:
        """Generate a response as a stream of events: a `chunk`, a `detection` or, at the end, the `final` verdict."""
        request = pb.GenerateStreamRequest(generation=as_generation(prompt, **options))
        return self._stream(
            self._calls.GenerateStream, request, self._timeout if timeout is None else timeout
        )

    async def inspect(
        self,
        prompt: Prompt,
        *,
        top_k: int | None = None,
        timeout: float | None = None,
        **options: Unpack[InputOptions],
    ) -> pb.InspectResponse:
        """Return the `top_k` strongest features of every token (10 unless given)."""
        request = pb.InspectRequest(input=as_input(prompt, **options), top_k=top_k)
        answer: pb.InspectResponse = await self._unary(self._calls.Inspect, request, timeout)
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
    ) -> AsyncEventStream[pb.WatchDetectionsResponse]:
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
    ) -> AsyncScoreStream:
        """Have what another server is asked and writes scored, while it writes it.

        Without a prompt its pieces are sent by `ask`. The timeout is that of the whole call.
        """
        return AsyncScoreStream(
            self._calls.ScoreStream,
            beginning(prompt, options),
            timeout=self._timeout if timeout is None else timeout,
            metadata=self._metadata,
        )

    async def policies(self, *, timeout: float | None = None) -> pb.ListPoliciesResponse:
        """Return the loaded policies with their rules and clamps."""
        answer: pb.ListPoliciesResponse = await self._unary(
            self._calls.ListPolicies, pb.ListPoliciesRequest(), timeout
        )
        return answer

    async def reload(self, *, timeout: float | None = None) -> pb.ReloadPoliciesResponse:
        """Have the server load its policy files again. If they are wrong, it keeps the old set: raises `CallFailed`."""
        answer: pb.ReloadPoliciesResponse = await self._unary(
            self._calls.ReloadPolicies, pb.ReloadPoliciesRequest(), timeout
        )
        return answer

    async def health(self, *, timeout: float | None = None) -> str:
        """Return the status that the health service gives: `SERVING` or `NOT_SERVING`."""
        answer = await self._unary(self._health.Check, health_pb2.HealthCheckRequest(), timeout)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    async def wait_until_connected(self, seconds: float = CONNECT_SECONDS) -> None:
        """Open the connection now. Raises `Unreachable` where it is refused, or takes longer than `seconds`."""
        try:
            await asyncio.wait_for(self._connected(), seconds)
        except TimeoutError:
            raise Unreachable(f"no answer from {self._address} within {seconds:g} seconds") from None

    async def close(self) -> None:
        """Close the connection and end its calls in progress."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _connected(self) -> None:
        state = self._channel.get_state(try_to_connect=True)
        while state is not grpc.ChannelConnectivity.READY:
            if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                raise refused(self._address)
            await self._channel.wait_for_state_change(state)
            state = self._channel.get_state(try_to_connect=True)

    async def _unary(self, method: Callable[..., Any], request: Any, timeout: float | None) -> Any:
        try:
            return await method(
                request, timeout=self._timeout if timeout is None else timeout, metadata=self._metadata
            )
        except grpc.RpcError as error:
            raise failure(error) from error

    def _stream(
        self, method: Callable[..., Any], request: Any, timeout: float | None
    ) -> AsyncEventStream[Any]:
        return AsyncEventStream(method(request, timeout=timeout, metadata=self._metadata))
