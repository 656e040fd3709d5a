"""The guard inside Envoy: the same proxy, where Envoy holds the connections to callers and to the server behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from monitor.http.calls import PEER
from monitor.http.errors import UpstreamError
from monitor.http.guard.upstream import AUTHORIZATION, OURS, Header, UpstreamAnswer, token_of
from monitor.rpc.envoy.conversation import CONVERSATION, EnvoyConversation, Gone, UpstreamResponse
from monitor.rpc.envoy.processor import GRPC_PEER
from monitor.settings import Settings


class EnvoyUpstream:
    """The server behind Envoy, which each request reaches through the conversation that it came with."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigurationError where the file of its token cannot be used."""
        self._token = token_of(settings)

    @asynccontextmanager
    async def answer(self, scope: Any, body: bytes, *, encoding: str = "") -> AsyncIterator[UpstreamAnswer]:
        """Have a request go on with this body, and give its answer. Raises UpstreamError where there is none."""
        conversation: EnvoyConversation = scope[CONVERSATION]
        try:
            response = await conversation.ask(self._headers(scope, encoding), body)
        except Gone:
            raise UpstreamError(502, "Envoy ended the request before its answer came", "broken") from None
        yield UpstreamAnswer(_Response(response))

    def _headers(self, scope: Any, encoding: str) -> list[Header]:
        left = (b"authorization", b"host", b"accept-encoding", b"content-encoding")
        kept = [
            (name, value)
            for name, value in scope["headers"]
            if name not in left and not name.startswith(OURS)
        ]
        authorization = scope.get(AUTHORIZATION) or (b"Bearer " + self._token if self._token else None)
        if authorization is not None:
            kept.append((b"authorization", authorization))
        if encoding:
            kept.append((b"content-encoding", encoding.encode()))
        # Compressed text would have to be unpacked to be scored.
        return [*kept, (b"accept-encoding", b"identity")]


class _Response:
    """A response that came through Envoy, as the parts of an HTTP client's that the guard looks at."""

    def __init__(self, response: UpstreamResponse) -> None:
        self._response = response
        self.status_code = response.status_code
        self.headers = _Headers(response.fields)

    async def aiter_raw(self) -> AsyncIterator[bytes]:
        async for part in self._response.parts():
            yield part


class _Headers:
    def __init__(self, raw: Sequence[Header]) -> None:
        self.raw = raw

    def get(self, name: str, default: str) -> str:
        wanted = name.encode()
        return next((value.decode("latin-1") for key, value in self.raw if key == wanted), default)


def of_envoy(scope: Any) -> dict[str, Any]:
    """The scope of a request, whose caller is Envoy: what its own call carries says who it is.

    Credentials in the request are for the server behind it.
    """
    context = scope[GRPC_PEER]
    theirs = next((value for name, value in scope["headers"] if name == b"authorization"), None)
    kept = [(name, value) for name, value in scope["headers"] if name != b"authorization"]
    # All of them: who sends two is refused.
    for name, own in context.invocation_metadata() or ():
        if name == "authorization" and isinstance(own, str):
            kept.append((b"authorization", own.encode("latin-1", "replace")))
    names = {name: list(values) for name, values in context.auth_context().items()}
    return dict(scope) | {"headers": kept, AUTHORIZATION: theirs, PEER: names}
