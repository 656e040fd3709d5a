"""The client for asyncio: the calls of `Client`, awaited."""

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

Event = TypeVar("Event")


class AsyncEventStream(Generic[Event]):
    """The events of a call, as they come. Leaving its `async with` block, or `cancel`, ends the call."""

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
        """End the call: the server stops at its next forward pass, and iterating ends."""
        self._cancelled = True
        self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()


class AsyncClient:
    """The calls of a server, for asyncio. Close it, or use it with `async with`.

    Arguments and errors are those of `Client`. Make it inside a running event loop.
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
        """A verdict on a text or a conversation; nothing is generated."""
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
        """A generation in one piece, with the verdict on prompt and response."""
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
        """A generation as it is released: events with a `chunk`, a `detection` or, last, the `final` verdict."""
        request = pb.GenerateStreamRequest(generation=as_generation(prompt, **options))
        return self._stream(self._calls.GenerateStream, request, timeout or self._timeout)

    async def inspect(
        self,
        prompt: Prompt,
        *,
        top_k: int | None = None,
        timeout: float | None = None,
        **options: Unpack[InputOptions],
    ) -> pb.InspectResponse:
        """The strongest features of every token, `top_k` of them (10 unless given)."""
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
        after: int | None = None,
        timeout: float | None = None,
    ) -> AsyncEventStream[pb.WatchDetectionsResponse]:
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

    async def policies(self, *, timeout: float | None = None) -> pb.ListPoliciesResponse:
        """The policies that are loaded, with their rules and clamps."""
        answer: pb.ListPoliciesResponse = await self._unary(
            self._calls.ListPolicies, pb.ListPoliciesRequest(), timeout
        )
        return answer

    async def reload(self, *, timeout: float | None = None) -> pb.ReloadPoliciesResponse:
        """Have the server read its policy files again. `CallFailed` where they are wrong; the old ones then stay."""
        answer: pb.ReloadPoliciesResponse = await self._unary(
            self._calls.ReloadPolicies, pb.ReloadPoliciesRequest(), timeout
        )
        return answer

    async def health(self, *, timeout: float | None = None) -> str:
        """The server's state in its health service: `SERVING` or `NOT_SERVING`."""
        answer = await self._unary(self._health.Check, health_pb2.HealthCheckRequest(), timeout)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    async def wait_until_connected(self, seconds: float = CONNECT_SECONDS) -> None:
        """Open the connection now. `Unreachable` where it is refused, or takes longer than this."""
        try:
            await asyncio.wait_for(self._connected(), seconds)
        except TimeoutError:
            raise Unreachable(f"no answer from {self._address} within {seconds:g} seconds") from None

    async def close(self) -> None:
        """Close the connection; calls in progress end."""
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
            return await method(request, timeout=timeout or self._timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise failure(error) from error

    def _stream(
        self, method: Callable[..., Any], request: Any, timeout: float | None
    ) -> AsyncEventStream[Any]:
        return AsyncEventStream(method(request, timeout=timeout, metadata=self._metadata))
