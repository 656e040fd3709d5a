"""The page's gate: who is logged in, which web pages may send requests, and the headers of every answer.

A person logs in with a caller's token. The browser keeps the number of a session, and the gate puts the token of that
session into the headers of each request. So tokens, roles, expiry and quotas are checked at every call as for anybody.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monitor.http.calls import Exchange, HttpCalls
from monitor.http.errors import HttpError, answer

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""What the page may load and run: its own files. No script can make markup of a text."""

HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
MOST_SESSIONS = 1024
MOST_OF_ONE = 32
"""Sessions of one token, so that nobody ends those of others by logging in again and again."""
LONGEST = 12 * 3600.0
"""Seconds after which a person logs in again."""
UNUSED = 2 * 3600.0
"""Seconds without a request after which a session ends."""
_SAFE = ("GET", "HEAD")
_API = "/api/"


class PageSessions:
    """The tokens of those who are logged in, by the hash of a random number that only their browser has.

    Used on the event loop only.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._held: OrderedDict[str, tuple[str, float, float]] = OrderedDict()
        """Token, when it began and when it was last used; the one unused for longest comes first."""

    def __len__(self) -> int:
        return len(self._held)

    def begin(self, token: str) -> str:
        """Begin a session; its number. Beyond so many, of this token or of all, the one unused for longest ends."""
        number, now = secrets.token_urlsafe(32), self._now()
        mine = [key for key, (held, _, _) in self._held.items() if held == token]
        for key in mine[: len(mine) + 1 - MOST_OF_ONE]:
            del self._held[key]
        self._held[_hash(number)] = token, now, now
        while len(self._held) > MOST_SESSIONS:
            self._held.popitem(last=False)
        return number

    def token(self, number: str) -> str | None:
        """The token of a session that goes on; None where there is none."""
        key, now = _hash(number), self._now()
        if key not in self._held:
            return None
        token, begun, used = self._held[key]
        if now - begun > LONGEST or now - used > UNUSED:
            del self._held[key]
            return None
        self._held[key] = token, begun, now
        self._held.move_to_end(key)
        return token

    def end(self, number: str) -> None:
        """End a session; an unknown number is ignored."""
        self._held.pop(_hash(number), None)


def _hash(number: str) -> str:
    return hashlib.sha256(number.encode("utf-8", "replace")).hexdigest()


class PageGate:
    """What every request to the page passes, and the two methods by which people log in and out."""

    def __init__(self, sessions: PageSessions | None = None) -> None:
        self.sessions = sessions or PageSessions()

    def around(self, app: ASGIApp) -> ASGIApp:
        """The application behind the gate."""

        async def gated(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            send = _with_headers(send, private=scope["path"].startswith(_API))
            if why := _why_foreign(scope):
                await _refused(why, scope, receive, send)
                return
            await app(self._with_token(scope), receive, send)

        return gated

    async def log_in(self, exchange: Exchange) -> None:
        """Begin a session with the token in the headers, which the call's checks have accepted."""
        token = exchange.header("authorization")[len("bearer ") :].strip()
        headers = {}
        if token:
            self.sessions.end(_cookie(exchange.scope))
            headers["set-cookie"] = _set_cookie(exchange.scope, self.sessions.begin(token), LONGEST)
        await exchange.json({"logged_in": bool(token)}, headers)

    async def log_out(self, exchange: Exchange) -> None:
        """End the session of this browser."""
        self.sessions.end(_cookie(exchange.scope))
        await exchange.json({"logged_in": False}, {"set-cookie": _set_cookie(exchange.scope, "", 0)})

    def _with_token(self, scope: Scope) -> Scope:
        """The request with the token of its session, unless it brings one of its own."""
        number = _cookie(scope)
        if not number or _header(scope, b"authorization"):
            return scope
        token = self.sessions.token(number)
        if token is None:
            return scope
        return dict(scope) | {
            "headers": [*scope["headers"], (b"authorization", f"Bearer {token}".encode("latin-1"))]
        }


def routes_of(gate: PageGate, calls: HttpCalls) -> dict[str, tuple[str, Any]]:
    """The two methods by their paths."""
    return {
        "/api/login": ("POST", calls.endpoint("PageLogin", gate.log_in)),
        "/api/logout": ("POST", calls.endpoint("PageLogin", gate.log_out)),
    }


def _why_foreign(scope: Scope) -> str:
    """Why a request is not one of this page's own; empty where it is, or where no browser sent it.

    A browser names the page that sends a request: in `origin` wherever something may change, and in `sec-fetch-site`.
    """
    changes = scope["method"] not in _SAFE
    if scope["path"].startswith(_API) and _header(scope, b"sec-fetch-site") in ("cross-site", "same-site"):
        return "another site sent this request"
    origin = _header(scope, b"origin")
    if origin:
        same = urlsplit(origin).netloc.lower() == _header(scope, b"host").lower()
        return "" if same else "a page of another origin sent this request"
    if changes and _cookie(scope) and not _header(scope, b"authorization"):
        return "a request that changes something names its origin"
    return ""


async def _refused(why: str, scope: Scope, receive: Receive, send: Send) -> None:
    from starlette.responses import JSONResponse

    found = answer(HttpError(403, f"{why}; use the page itself"), "")
    await JSONResponse(found.body, found.status, found.headers)(scope, receive, send)


def _with_headers(send: Send, *, private: bool) -> Send:
    """The way out, on which every answer gets the page's headers."""
    named = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
    # Its files may be kept, and are asked for again: those of two versions do not go together.
    named.append((b"cache-control", b"no-store" if private else b"no-cache"))

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = {name for name, _ in named}
            kept = [pair for pair in message.get("headers", ()) if pair[0].lower() not in own]
            message = dict(message) | {"headers": [*kept, *named]}
        await send(message)

    return sent


def _header(scope: Scope, name: bytes) -> str:
    found: bytes = next((value for key, value in scope["headers"] if key == name), b"")
    return found.decode("latin-1")


def _cookie_name(scope: Scope) -> str:
    """Cookies do not tell ports apart, and several pages may be open on one machine."""
    port = _header(scope, b"host").rpartition(":")[2]
    return f"sae_monitor_{port}" if port.isdecimal() else "sae_monitor"


def _cookie(scope: Scope) -> str:
    """The number of the session that the browser sends; empty where it sends none."""
    try:
        found = SimpleCookie(_header(scope, b"cookie")).get(_cookie_name(scope))
    except CookieError:
        return ""
    return found.value if found is not None else ""


def _set_cookie(scope: Scope, number: str, seconds: float) -> str:
    secure = "; Secure" if scope["scheme"] == "https" else ""
    name = _cookie_name(scope)
    return f"{name}={number}; Path=/; Max-Age={seconds:.0f}; HttpOnly; SameSite=Strict{secure}"
