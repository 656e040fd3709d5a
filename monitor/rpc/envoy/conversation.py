"""One request and its response on their way through Envoy, as an application sees them that serves HTTP (ASGI).

The application reads the request, and either answers it itself or has it passed on (`ask`), changes its response and
sends that. Bodies come and go in parts (FULL_DUPLEX_STREAMED), so that any part may be held for as long as it takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from monitor.rpc.access.call_interceptor import Context
from monitor.rpc.envoy import headers
from monitor.rpc.envoy.headers import Header
from monitor.v1 import ext_proc_pb2 as pb

CONVERSATION = "monitor.envoy"
"""Key of the conversation in the scope of its request."""
_PART = 60 << 10
"""Bytes of a body in one message; Envoy takes no more than 64 KiB."""
_AHEAD = 16
"""Parts of a body that are taken before earlier ones were read."""
FULL_DUPLEX = 4
"""FULL_DUPLEX_STREAMED, as Envoy writes it in its first message."""


class OutOfOrder(Exception):
    """Envoy sends what cannot be processed: it is configured otherwise, or speaks another version."""


class Gone(Exception):
    """Envoy has ended the conversation."""


@dataclass
class _Body:
    """A body on its way from Envoy."""

    parts: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(_AHEAD))
    """None is its end."""
    trailers: bool = False
    """True where trailers ended it, which want an answer of their own."""
    absent: bool = False
    """True where it was said with the headers that there is none."""


@dataclass
class UpstreamResponse:
    """A response of the server behind Envoy, in the form of one of an HTTP client."""

    status_code: int
    fields: list[Header]
    body: _Body

    async def parts(self) -> AsyncIterator[bytes]:
        """Its body as it comes. Where Envoy goes, nothing more comes: `receive` says so."""
        while not self.body.absent and (part := await self.body.parts.get()) is not None:
            yield part


class EnvoyConversation:
    """One call of `Process`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._begun: asyncio.Future[pb.HttpHeaders] = asyncio.get_running_loop().create_future()
        self._answered: asyncio.Future[pb.HttpHeaders] = asyncio.get_running_loop().create_future()
        self._request, self._response = _Body(), _Body()
        self._fields: list[Header] = []
        self._asked: UpstreamResponse | None = None
        self._start: Mapping[str, Any] = {}
        self._made: list[bytes] | None = None
        """Body of a response that is made here; None where it is that of the server, changed."""
        self._read = False
        self.over = False
        """True once all of the response was sent."""
        self.gone = asyncio.Event()

    async def fill(self) -> None:
        """Take what Envoy sends, up to its end."""
        try:
            first = True
            while isinstance(data := await self._context.read(), bytes):
                message = pb.ProcessingRequest.FromString(data)
                if first:
                    _check(message)
                    first = False
                await self._take(message)
        finally:
            self.gone.set()
            for begun in (self._begun, self._answered):
                if not begun.done():
                    begun.set_exception(Gone())
                    begun.exception()  # nobody may wait for it

    async def begin(self) -> list[Header]:
        """Headers of the request, pseudo headers among them. Raises Gone."""
        found = await self._begun
        self._request.absent = found.end_of_stream
        self._fields = headers.read(found.headers)
        return self._fields

    async def receive(self) -> dict[str, Any]:
        """The next part of the request's body, or that its caller is gone."""
        if self._read:
            await self.gone.wait()
            return {"type": "http.disconnect"}
        try:
            part = None if self._request.absent else await self._next_part()
        except Gone:
            return {"type": "http.disconnect"}
        self._read = part is None
        return {"type": "http.request", "body": part or b"", "more_body": part is not None}

    async def ask(self, fields: Sequence[Header], body: bytes) -> UpstreamResponse:
        """Have the request passed on with these headers and this body; the response, whose body has not come.

        Raises Gone.
        """
        common = pb.CommonResponse(header_mutation=headers.changes(self._fields, fields))
        await self._send(request_headers=pb.HeadersResponse(response=common))
        if not self._request.absent:
            trailers = self._request.trailers
            for part, last in _parts(body):
                await self._send(request_body=_streamed(part, end=last and not trailers))
            if trailers:
                await self._send(request_trailers=pb.TrailersResponse())
        found = await self._answered
        self._response.absent = found.end_of_stream
        pairs = headers.read(found.headers)
        status = next((int(value) for name, value in pairs if name == b":status"), 200)
        plain = [pair for pair in pairs if not pair[0].startswith(b":")]
        self._asked = UpstreamResponse(status, plain, self._response)
        return self._asked

    async def send(self, message: Mapping[str, Any]) -> None:
        """Take a part of the application's response."""
        if message["type"] == "http.response.start":
            self._start = message
            asked = self._asked
            if asked is None or asked.status_code != message["status"]:
                self._made = []
                return
            common = pb.CommonResponse(header_mutation=headers.changes(asked.fields, message["headers"]))
            await self._send(response_headers=pb.HeadersResponse(response=common))
            return
        body, more = message.get("body", b""), bool(message.get("more_body"))
        if self._made is None:
            await self._pass_on(body, more)
        else:
            self._made.append(body)
            if not more:
                await self._answer(b"".join(self._made))
        self.over = not more

    async def _answer(self, body: bytes) -> None:
        """Send a response that was made here."""
        immediate = pb.ImmediateResponse(
            status=pb.HttpStatus(code=self._start["status"]),
            headers=headers.only(self._start["headers"]),
            body=body,
            details="sae_monitor",
        )
        await self._send(immediate_response=immediate)

    async def _pass_on(self, body: bytes, more: bool) -> None:
        """Send a part of the response's body."""
        if self._response.absent:
            return
        ends = not more and not self._response.trailers
        for part, last in _parts(body) if body or ends else ():
            await self._send(response_body=_streamed(part, end=last and ends))
        if not more and self._response.trailers:
            await self._send(response_trailers=pb.TrailersResponse())

    async def _next_part(self) -> bytes | None:
        """The next part of the request's body; None at its end. Raises Gone."""
        coming = asyncio.ensure_future(self._request.parts.get())
        gone = asyncio.ensure_future(self.gone.wait())
        try:
            await asyncio.wait([coming, gone], return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                raise Gone
            return coming.result()
        finally:
            coming.cancel()
            gone.cancel()

    async def _take(self, message: pb.ProcessingRequest) -> None:
        kind = message.WhichOneof("request")
        if kind == "request_headers" and not self._begun.done():
            self._begun.set_result(message.request_headers)
        elif kind == "response_headers" and not self._answered.done():
            self._answered.set_result(message.response_headers)
        elif kind in ("request_body", "response_body"):
            given = getattr(message, kind)
            await self._add(self._request if kind == "request_body" else self._response, given)
        elif kind in ("request_trailers", "response_trailers"):
            body = self._request if kind == "request_trailers" else self._response
            body.trailers = True
            await body.parts.put(None)
        else:
            raise OutOfOrder

    async def _add(self, body: _Body, part: pb.HttpBody) -> None:
        if part.body:
            await body.parts.put(part.body)
        if part.end_of_stream:
            await body.parts.put(None)

    async def _send(self, **response: Any) -> None:
        """Send a message, unless Envoy has gone: as with every server of HTTP, whoever receives is told of that."""
        try:
            await self._context.write(pb.ProcessingResponse(**response).SerializeToString())
        except grpc.aio.InternalError:
            self.gone.set()


def _check(first: pb.ProcessingRequest) -> None:
    """Raise OutOfOrder where Envoy is not configured as it must be."""
    said = first.protocol_config
    modes = (said.request_body_mode, said.response_body_mode)
    if first.observability_mode or (first.HasField("protocol_config") and set(modes) != {FULL_DUPLEX}):
        raise OutOfOrder


def _parts(body: bytes) -> list[tuple[bytes, bool]]:
    """A body in parts, and whether each is its last; an empty one has an empty part."""
    starts = range(0, max(len(body), 1), _PART)
    return [(body[at : at + _PART], at + _PART >= len(body)) for at in starts]


def _streamed(part: bytes, *, end: bool) -> pb.BodyResponse:
    streamed = pb.StreamedBodyResponse(body=part, end_of_stream=end)
    mutation = pb.BodyMutation(streamed_response=streamed)
    return pb.BodyResponse(response=pb.CommonResponse(body_mutation=mutation))
