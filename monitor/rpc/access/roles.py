"""Who a caller is and what each role may do.

Knows methods by name and the one request field that needs a role of its own. Does not know tokens or certificates.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from monitor.errors import PermissionDenied


class Role(enum.StrEnum):
    """What a caller may do. Roles do not include each other: a caller has every role that its line names."""

    INFER = "infer"
    """Score and generate under the policies."""
    INSPECT = "inspect"
    """See all features of a text, and what was detected in other callers' requests."""
    ADMIN = "admin"
    """Load policies again, and clamp features that no policy clamps."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who is known by a token or a certificate."""

    name: str
    roles: frozenset[Role]
    calls: int | None = None
    """Calls in progress at once, where the file of callers says so."""
    tokens: int | None = None
    """Tokens in progress at once, where the file of callers says so."""


ANYBODY = Caller("", frozenset(Role))
"""Whoever reaches a server that asks nobody who they are."""

caller: ContextVar[Caller] = ContextVar("caller", default=ANYBODY)
"""Who made the call that this task serves."""

EVERY = frozenset(Role)
_INFER = frozenset({Role.INFER})
_INSPECT = frozenset({Role.INSPECT})
_ADMIN = frozenset({Role.ADMIN})

METHODS: Mapping[str, frozenset[Role]] = MappingProxyType(
    {
        "Score": _INFER,
        "Generate": _INFER,
        "GenerateStream": _INFER,
        "ListPolicies": EVERY,
        "Inspect": _INSPECT,
        "WatchDetections": _INSPECT,
        "ReloadPolicies": _ADMIN,
    }
)
"""Any one of these roles is enough. A method that is not listed needs `admin`, so that a new one begins closed."""


def check_method(who: Caller, method: str) -> None:
    """PermissionDenied where the caller has none of the roles that a method of MonitorService asks for."""
    wanted = METHODS.get(method, _ADMIN)
    if not who.roles & wanted:
        raise PermissionDenied(f"{method} needs the role {' or '.join(sorted(wanted))}")


def check_request(who: Caller, request: Any) -> None:
    """PermissionDenied where the message asks for more than its method does: clamps of the caller's own."""
    generation = getattr(request, "generation", None)
    if Role.ADMIN not in who.roles and generation is not None and len(getattr(generation, "clamps", ())):
        raise PermissionDenied(
            "generation.clamps needs the role admin; leave it out to run under the policies alone"
        )
