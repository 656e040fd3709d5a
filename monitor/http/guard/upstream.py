"""The server behind the guard: requests to it, their answers, and which headers go which way.

A caller's authorization goes to it and is never logged. Headers that are between two neighbours stay between them
(RFC 9110, section 7.6.1).
"""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx2

from monitor.errors import ConfigurationError
from monitor.http.errors import UpstreamError
from monitor.settings import Settings

AUTHORIZATION = "monitor.upstream.authorization"
"""Key of the authorization that goes to the upstream server, in the scope of a request."""
OWN_AUTHORIZATION = b"x-sae-monitor-authorization"
"""Header with the authorization that is for the guard, where `authorization` is for the upstream server."""
OURS = b"x-sae-monitor-"
"""Headers of ours, which nobody else may set."""
_BETWEEN_NEIGHBOURS = frozenset(
    (
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection"),
        *(b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect"),
    )
)
_ANEW = frozenset((b"host", b"content-length", b"accept-encoding", b"authorization", b"content-encoding"))
"""Headers of a request that are written anew."""
_OF_BODY = frozenset(
    (
        *(b"content-length", b"content-encoding", b"content-range", b"accept-ranges", b"etag"),
        *(b"content-md5", b"digest", b"content-digest", b"repr-digest"),
    )
)
"""Headers of an answer that describe its body as it came, and are wrong of one that is written anew."""
_INFLATES = {"gzip": 31, "x-gzip": 31, "deflate": 15}
"""Content codings that can be read, and how zlib calls them."""
_LONGEST_ID = 128
"""Characters of an id that the upstream server gives to a request; a longer one is not logged."""
MOST_BYTES = 64 << 20
"""Of an answer in one piece, and of one event of a stream."""

Header = tuple[bytes, bytes]


class Upstream:
    """Connections to the upstream server. `close` them at the end."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigurationError where the files of its token or its certificates cannot be used."""
        assert settings.upstream is not None
        self.url = httpx2.URL(settings.upstream)
        """Where requests go."""
        self._token = token_of(settings)
        timeout = httpx2.Timeout(
            settings.upstream_silence_seconds, connect=settings.upstream_connect_seconds, pool=None
        )
        # No proxy of the environment and no .netrc: the operator said where requests go, and with which token.
        self._client = httpx2.AsyncClient(
            timeout=timeout,
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=64),
            verify=_trust(settings),
            trust_env=False,
            # What the server has one caller keep is none of another's: cookies pass, and none is kept here.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    @asynccontextmanager
    async def answer(self, scope: Any, body: bytes, *, encoding: str = "") -> AsyncIterator[UpstreamAnswer]:
        """Send a request with this body, and give its answer, whose body was not read; leaving ends it.

        Raises UpstreamError where there is no answer.
        """
        path = scope["raw_path"].partition(b"?")[0]
        query = scope.get("query_string", b"")
        # Every request brings its own `/v1`; clients of the API are given URLs that end with it.
        before = self.url.raw_path.rstrip(b"/").removesuffix(b"/v1")
        target = before + path + (b"?" + query if query else b"")
        url = self.url.copy_with(raw_path=target)
        headers = self._headers(scope, body, encoding)
        request = self._client.build_request(scope["method"], url, headers=headers, content=body or None)
        with _told():
            response = await self._client.send(request, stream=True)
        try:
            yield UpstreamAnswer(response)
        finally:
            await asyncio.shield(response.aclose())

    def _headers(self, scope: Any, body: bytes, encoding: str) -> list[Header]:
        kept = [
            (name, value)
            for name, value in passed_on(scope["headers"])
            if name not in _ANEW and not name.startswith(OURS)
        ]
        authorization = scope.get(AUTHORIZATION) or (b"Bearer " + self._token if self._token else None)
        if authorization is not None:
            kept.append((b"authorization", authorization))
        if body:
            kept.append((b"content-length", str(len(body)).encode()))
        if encoding:
            kept.append((b"content-encoding", encoding.encode()))
        # Compressed text would have to be unpacked to be scored.
        return [*kept, (b"accept-encoding", b"identity")]


class UpstreamAnswer:
    """An answer of the upstream server."""

    def __init__(self, response: Any) -> None:
        self._response = response
        self.status: int = response.status_code

    @property
    def kind(self) -> str:
        """Its content type, without parameters."""
        return str(self._response.headers.get("content-type", "")).partition(";")[0].strip().lower()

    @property
    def request_id(self) -> str:
        """What it calls the request (`x-request-id`); empty where that is missing or no text of an id's length."""
        found = str(self._response.headers.get("x-request-id", ""))
        return found if len(found) <= _LONGEST_ID and found.isascii() and found.isprintable() else ""

    @property
    def encoding(self) -> str:
        """The coding of its body; empty for none."""
        found = str(self._response.headers.get("content-encoding", "")).strip().lower()
        return "" if found == "identity" else found

    @property
    def readable(self) -> bool:
        """True where its body is not compressed, or in a way that can be unpacked here."""
        return not self.encoding or self.encoding in _INFLATES

    def headers(self, *, whole: bool) -> list[Header]:
        """Those that go to the caller; `whole`: with those that describe the body as it came."""
        return [
            (name, value)
            for name, value in passed_on(self._response.headers.raw)
            if not name.startswith(OURS) and name != b"date" and (whole or name not in _OF_BODY)
        ]

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Its body, unpacked, as it comes. Raises UpstreamError where it does not come to its end."""
        unpack = zlib.decompressobj(_INFLATES[self.encoding]) if self.encoding else None
        async for piece in self.raw():
            if unpack is None:
                yield piece
                continue
            try:
                while piece:
                    yield unpack.decompress(piece, 1 << 20)
                    piece = unpack.unconsumed_tail
            except zlib.error:
                raise UpstreamError(
                    502, "the upstream server's answer cannot be unpacked", "unreadable"
                ) from None

    async def raw(self) -> AsyncGenerator[bytes, None]:
        """Its body as it comes. Raises UpstreamError where it does not come to its end."""
        with _told():
            async for piece in self._response.aiter_raw():
                yield piece

    async def content(self) -> bytes:
        """Its whole body, unpacked. Raises UpstreamError where it is too large or does not come to its end."""
        parts, size = [], 0
        async for piece in self.pieces():
            size += len(piece)
            if size > MOST_BYTES:
                raise UpstreamError(
                    502, f"the upstream server's answer is larger than {MOST_BYTES} bytes", "unreadable"
                )
            parts.append(piece)
        return b"".join(parts)


def passed_on(headers: Iterable[Header]) -> list[Header]:
    """Headers, names in lower case, without those that are between two neighbours."""
    lowered = [(name.lower(), value) for name, value in headers]
    named = {
        part.strip().lower() for name, value in lowered if name == b"connection" for part in value.split(b",")
    }
    return [(name, value) for name, value in lowered if name not in _BETWEEN_NEIGHBOURS | named]


def unpacked(body: bytes, encoding: str, most: int) -> bytes | None:
    """A body without its content coding; None where that cannot be undone here, or it is larger than `most`."""
    if encoding in ("", "identity"):
        return body
    if encoding not in _INFLATES:
        return None
    try:
        unpack = zlib.decompressobj(_INFLATES[encoding])
        found = unpack.decompress(body, most + 1)
    except zlib.error:
        return None
    return found if unpack.eof and len(found) <= most else None


def broken() -> UpstreamError:
    """What is said where an answer has no end."""
    return UpstreamError(502, "the upstream server ended its answer before it was complete", "broken")


@contextmanager
def _told() -> Iterator[None]:
    """Make errors of the connection to the upstream server such that callers may see them."""
    try:
        yield
    except (httpx2.ConnectTimeout, httpx2.ConnectError):
        raise UpstreamError(502, "the upstream server cannot be reached", "unreachable") from None
    except httpx2.TimeoutException:
        raise UpstreamError(504, "the upstream server sent nothing for too long", "timeout") from None
    except (httpx2.TransportError, httpx2.StreamError):
        raise broken() from None


def with_own_authorization(scope: Any, *, checks_callers: bool) -> dict[str, Any]:
    """The scope of a request, with what is for the guard as `authorization`, and beside it what is for upstream."""
    headers: Sequence[Header] = scope["headers"]
    own = [value for name, value in headers if name == OWN_AUTHORIZATION]
    theirs = [value for name, value in headers if name == b"authorization"]
    if checks_callers and not own:
        own, theirs = theirs, []
    kept = [(name, value) for name, value in headers if name not in (b"authorization", OWN_AUTHORIZATION)]
    # All of them: who sends two is refused, and it is not for this place to choose one.
    kept += [(b"authorization", value) for value in own]
    return dict(scope) | {"headers": kept, AUTHORIZATION: theirs[-1] if theirs else None}


def token_of(settings: Settings) -> bytes:
    """The operator's token for the upstream server; empty for none. Raises ConfigurationError."""
    if settings.upstream_token_file is None:
        return b""
    try:
        found = settings.upstream_token_file.read_bytes().strip()
    except OSError as error:
        raise ConfigurationError(f"upstream_token_file: cannot be read: {error.strerror}") from None
    if not found or not found.isascii() or b"\n" in found:
        raise ConfigurationError("upstream_token_file: holds no token; write the token and nothing else")
    return found


def _trust(settings: Settings) -> ssl.SSLContext:
    try:
        cafile = None if settings.upstream_ca is None else str(settings.upstream_ca)
        return ssl.create_default_context(cafile=cafile)
    except OSError as error:
        raise ConfigurationError(f"upstream_ca: cannot be used: {error.strerror or error}") from None
