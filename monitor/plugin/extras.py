"""What a caller of vLLM's own API may ask of the monitor, in `vllm_xargs`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from monitor.errors import BadRequest, Violation
from monitor.http.fields import Fields, printable
from monitor.http.openai.requests import MOST_POLICIES, Named, clamps_in, labels_in
from monitor.records import Clamp
from monitor.rpc.wire.problems import Problems
from monitor.rpc.wire.requests import session_and_labels

PREFIX = "sae_monitor_"
_FIELD = "vllm_xargs"
_CLAMPS, _LABELS = f"{PREFIX}clamps", f"{PREFIX}labels"
_FORMS = {
    _CLAMPS: 'a JSON list such as [{"feature": 17, "target": -2}]',
    _LABELS: 'a JSON object such as {"app": "shop"}',
}
"""Fields whose values are JSON, which `vllm_xargs` takes as texts alone, and what to write in them."""


@dataclass(frozen=True, slots=True)
class Extras:
    """What a request says beside its prompt."""

    clamps: tuple[Clamp, ...] = ()
    policies: frozenset[str] = frozenset()
    """Without which it must not run."""
    labels: Mapping[str, str] = field(default_factory=dict)
    session: str = ""


def at(name: str) -> str:
    """Path of an argument in a request."""
    return f"{_FIELD}.{PREFIX}{name}"


def extras_of(given: Mapping[str, Any] | None, *, allowed: bool) -> Extras:
    """Read the arguments whose names begin with `sae_monitor_`. BadRequest where they are wrong or not allowed."""
    mine = {name: value for name, value in (given or {}).items() if name.startswith(PREFIX)}
    if not mine:
        return Extras()
    if not allowed:
        first = printable(next(iter(mine)))
        why = "this server takes none (its setting vllm_xargs); leave it out"
        raise BadRequest(Violation(f"{_FIELD}.{first}", why))
    problems = Problems()
    fields = Fields({name: _parsed(name, value, problems) for name, value in mine.items()}, problems, _FIELD)
    named = Named(fields.text(f"{PREFIX}session"), labels_in(fields, _LABELS))
    session, labels = session_and_labels(named, _FIELD, problems, prefix=PREFIX, session="session")
    found = Extras(clamps_in(fields, _CLAMPS), _policies(fields, f"{PREFIX}policies"), labels, session)
    fields.finish()
    problems.raise_any()
    return found


def _policies(fields: Fields, name: str) -> frozenset[str]:
    """A list of names, or a text with commas between them."""
    found = [part.strip() for text in fields.texts(name) for part in text.split(",")]
    if len(found) > MOST_POLICIES:
        fields.wrong(name, f"has {len(found)} names; write at most {MOST_POLICIES}")
    return frozenset(part for part in found[:MOST_POLICIES] if part)


def _parsed(name: str, value: Any, problems: Problems) -> Any:
    """The value of a field, out of its text where it is JSON; None where the text is none."""
    if name not in _FORMS or not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        problems.add(f"{_FIELD}.{name}", f"is not JSON; write {_FORMS[name]}, as a text")
        return None
