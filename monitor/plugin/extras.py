"""What a caller of vLLM's own API may ask of the monitor, in `vllm_xargs`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from monitor.errors import BadRequest, Violation
from monitor.records import Clamp, Where

PREFIX = "sae_monitor_"
_KNOWN = ("clamps", "policies", "labels", "session")


@dataclass(frozen=True, slots=True)
class Extras:
    """What a request says beside its prompt."""

    clamps: tuple[Clamp, ...] = ()
    policies: frozenset[str] = frozenset()
    """Without which it must not run."""
    labels: Mapping[str, str] = field(default_factory=dict)
    session: str = ""


def extras_of(given: Mapping[str, Any] | None, *, allowed: bool) -> Extras:
    """Read the arguments whose names begin with `sae_monitor_`. BadRequest where they are wrong or not allowed."""
    mine = {
        name.removeprefix(PREFIX): value for name, value in (given or {}).items() if name.startswith(PREFIX)
    }
    if not mine:
        return Extras()
    if not allowed:
        raise BadRequest(_wrong(next(iter(mine)), "this server takes none (its setting vllm_xargs)"))
    if unknown := sorted(mine.keys() - set(_KNOWN)):
        raise BadRequest(
            _wrong(unknown[0], f"is unknown; write one of {', '.join(PREFIX + n for n in _KNOWN)}")
        )
    return Extras(
        _clamps(mine.get("clamps", "[]")),
        frozenset(_names(mine.get("policies", []))),
        _labels(mine.get("labels", "{}")),
        str(mine.get("session", "")),
    )


def _clamps(text: object) -> tuple[Clamp, ...]:
    found = _parsed("clamps", text, list)
    try:
        return tuple(
            Clamp(
                int(one["feature"]),
                float(one["target"]),
                Where(one["where"]) if "where" in one else Where.by_default(float(one["target"])),
            )
            for one in found
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadRequest(
            _wrong("clamps", f'{error}; write a JSON list such as [{{"feature": 17, "target": -2}}]')
        ) from None


def _names(value: object) -> list[str]:
    if isinstance(value, str):
        return [name.strip() for name in value.split(",") if name.strip()]
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return value
    raise BadRequest(_wrong("policies", "write a list of names"))


def _labels(text: object) -> dict[str, str]:
    found = _parsed("labels", text, dict)
    if not all(isinstance(value, str) for value in found.values()):
        raise BadRequest(_wrong("labels", "write a JSON object whose values are texts"))
    return dict(found)


def _parsed(name: str, text: object, kind: type) -> Any:
    try:
        found = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, kind):
        raise BadRequest(_wrong(name, f"write a JSON {'list' if kind is list else 'object'} as a text"))
    return found


def _wrong(name: str, why: str) -> Violation:
    return Violation(f"vllm_xargs.{PREFIX}{name}", why)
