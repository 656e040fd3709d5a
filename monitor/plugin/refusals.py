"""Refusals on their way from the engine core to vLLM's API server: an HTTP status and a text, in a stop reason.

Of a request that ends with an error vLLM's API server says nothing but that, as an error 500. So what its caller is to
be told is written into the stop reason, and read there (`front`).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from monitor.http.errors import answer

_FORM = re.compile(r"refused \((\d{3})\): (.*)", re.DOTALL)


class Refusal(NamedTuple):
    """Why a request was not run, or not to its end."""

    status: int
    """Of HTTP."""
    why: str
    """What its caller may be told."""

    def __str__(self) -> str:
        return f"refused ({self.status}): {self.why}"


def refusal_of(error: BaseException, name: str) -> Refusal:
    """What the caller of a request is told for an exception: what callers of our own HTTP API are told."""
    found = answer(error, name)
    return Refusal(found.status, str(found.body["error"]["message"]))


def refusal_in(stop_reason: object) -> Refusal | None:
    """The refusal that a stop reason holds; None where it is another."""
    found = _FORM.fullmatch(stop_reason) if isinstance(stop_reason, str) else None
    return None if found is None else Refusal(int(found[1]), found[2])
