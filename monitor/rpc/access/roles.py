"""Callers and their roles, and which methods and request fields each role allows."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sized
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from monitor.errors import PermissionDenied


class Role(enum.StrEnum):
    """What a caller may do. No role includes another: a caller has exactly those that its line names."""

    INFER = "infer"
    """May score and generate under the policies."""
    INSPECT = "inspect"
    """May see all features of a text, and what was detected in other callers' requests."""
    ADMIN = "admin"
    """May reload policies, and clamp features of its own choice."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A client of the server, known by a token or a certificate."""

    name: str
    roles: frozenset[Role]
    calls: int | None = None
    """Maximum number of calls in progress; None for the server's setting."""
    tokens: int | None = None
    """Maximum number of tokens in progress; None for the server's setting."""


ANYBODY = Caller("", frozenset(Role))
"""The caller of every call to a server without authentication."""

caller: ContextVar[Caller] = ContextVar("caller", default=ANYBODY)
"""The caller of the call that the current task serves."""

EVERY = frozenset(Role)
_INFER = frozenset({Role.INFER})
_INSPECT = frozenset({Role.INSPECT})
_ADMIN = frozenset({Role.ADMIN})

METHODS: Mapping[str, frozenset[Role]] = MappingProxyType(
    {
        "Score": _INFER,
        "Generate": _INFER,
        "GenerateStream": _INFER,
        "ScoreStream": _INFER,
        "ChatCompletions": _INFER,
        "Completions": _INFER,
        "Moderations": _INFER,
        "LiteLlmGuardrail": _INFER,
        "WebhookRequest": _INFER,
        "WebhookResponse": _INFER,
        "DetectContents": _INFER,
        "DetectChat": _INFER,
        "DetectGeneration": _INFER,
        "GuardChatCompletions": _INFER,
        "GuardCompletions": _INFER,
        "GuardOther": _INFER,
        "EnvoyChatCompletions": _INFER,
        "EnvoyCompletions": _INFER,
        "EnvoyOther": _INFER,
        "Models": EVERY,
        "ListPolicies": EVERY,
        "Inspect": _INSPECT,
        "WatchDetections": _INSPECT,
        "ReloadPolicies": _ADMIN,
        "PageLogin": EVERY,
        "PageAbout": EVERY,
        "PagePolicies": EVERY,
        "PageChat": _INFER,
        "PageTranscript": _INFER,
        "PageFeatures": _INSPECT,
        "PageAlerts": _INSPECT,
        "PageDraft": _INSPECT,
        "PageSave": _ADMIN,
    }
)
"""Roles that allow a method of MonitorService or of the HTTP API; any one is enough. A method that is not listed needs
`admin`, so that none is open by mistake."""


def check_method(who: Caller, method: str) -> None:
    """Raise PermissionDenied where the caller has none of the roles that a method of MonitorService needs."""
    wanted = METHODS.get(method, _ADMIN)
    if not who.roles & wanted:
        raise PermissionDenied(f"{method} needs the role {' or '.join(sorted(wanted))}")


def check_request(who: Caller, request: Any) -> None:
    """Raise PermissionDenied where the message contains clamps and the caller is no admin."""
    generation = getattr(request, "generation", None)
    if generation is not None:
        check_clamps(who, getattr(generation, "clamps", ()), "generation.clamps")


def check_clamps(who: Caller, clamps: Sized, field: str) -> None:
    """Raise PermissionDenied where a request clamps features and the caller is no admin."""
    if Role.ADMIN not in who.roles and len(clamps):
        raise PermissionDenied(f"{field} needs the role admin; leave it out to run under the policies alone")
