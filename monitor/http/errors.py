"""Errors as callers of the HTTP API see them: an HTTP status and the error body of the OpenAI API.

Clients of the OpenAI API try again after 408, 409, 429 and 5xx, and after the time in `Retry-After` where it is there.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from monitor.errors import (
    BadRequest,
    MonitorError,
    MonitoringFailed,
    Overloaded,
    Unavailable,
    Violation,
)
from monitor.rpc.error_status import INTERNAL_TEXT, REASONS, REFUSED_TEXT

STATUS = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "FAILED_PRECONDITION": 503,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
"""HTTP status by the name of the gRPC status of an error."""

_TYPE = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    421: "invalid_request_error",
    429: "rate_limit_error",
}
_LONGEST_TEXT = 2000


class HttpError(BadRequest):
    """A request that is wrong as HTTP, such as a body that is too large; `http_status` says how."""

    def __init__(self, http_status: int, text: str) -> None:
        self.http_status, self.text = http_status, text
        super().__init__(Violation("request", text))


class UpstreamError(Unavailable):
    """The server behind this one did not answer, or not to the end; `http_status` says how.

    `fault` is a label value of the guard's metrics.
    """

    def __init__(self, http_status: int, text: str, fault: str) -> None:
        self.http_status, self.fault = http_status, fault
        super().__init__(text)


class ErrorAnswer(NamedTuple):
    """An error on its way to a caller."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str]


def answer(error: BaseException, request_id: str) -> ErrorAnswer:
    """What a caller sees for an exception. One from outside the project's own tree keeps its text to itself."""
    headers: dict[str, str] = {}
    if not isinstance(error, MonitorError) or error.code == MonitorError.code:
        return ErrorAnswer(500, _body(500, INTERNAL_TEXT, "internal", None, request_id), headers)
    status = error.http_status if isinstance(error, HttpError | UpstreamError) else STATUS[error.code]
    reason = next((name for kind, name in REASONS.items() if isinstance(error, kind)), "INTERNAL")
    reason = "UPSTREAM" if isinstance(error, UpstreamError) else reason
    if isinstance(error, Overloaded):
        headers["retry-after"] = str(math.ceil(error.retry_after))
        headers["retry-after-ms"] = str(math.ceil(error.retry_after * 1000))
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return ErrorAnswer(
        status, _body(status, _text(error), reason.lower(), _param(error), request_id), headers
    )


def _text(error: MonitorError) -> str:
    if isinstance(error, MonitoringFailed):
        return REFUSED_TEXT
    text = error.text if isinstance(error, HttpError) else str(error)
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"


def _param(error: MonitorError) -> str | None:
    if isinstance(error, HttpError) or not isinstance(error, BadRequest):
        return None
    return error.violations[0].field


def _body(status: int, text: str, code: str, param: str | None, request_id: str) -> dict[str, Any]:
    kind = _TYPE.get(status, "server_error")
    return {"error": {"message": text, "type": kind, "param": param, "code": code, "request_id": request_id}}
