"""Reads the fields of a JSON body: each with its type, every wrong one with its path, none passed over unread."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from monitor.errors import BadRequest, Violation
from monitor.rpc.wire.problems import Problems

MOST_OBJECTS = 4096
"""Maximum length of a list of objects."""


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object in a body. Raises BadRequest where it is anything else."""
    try:
        found = json.loads(body, parse_constant=_no_constant)
    except RecursionError:
        raise BadRequest(Violation("body", "is nested too deeply; write a flat JSON object")) from None
    except (ValueError, UnicodeDecodeError):
        raise BadRequest(Violation("body", "is not JSON; write a JSON object in UTF-8")) from None
    if not isinstance(found, dict):
        raise BadRequest(Violation("body", "is not a JSON object; write {…}"))
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


class Fields:
    """One JSON object of a body. Reading a field marks it as known; `finish` notes those that nobody knew."""

    def __init__(self, content: Mapping[str, Any], problems: Problems, path: str = "") -> None:
        self._content, self.problems, self.path = content, problems, path
        self._known: set[str] = set()

    def at(self, name: str) -> str:
        """Path of a field of this object."""
        return f"{self.path}.{name}" if self.path else name

    def wrong(self, name: str, description: str) -> None:
        """Note a wrong field."""
        self.problems.add(self.at(name), description)

    def raw(self, name: str) -> Any:
        """The field as it is; None where it is absent or null."""
        self._known.add(name)
        return self._content.get(name)

    def has(self, name: str) -> bool:
        """True where the field is given, and not null."""
        return self.raw(name) is not None

    def text(self, name: str, default: str = "") -> str:
        """A text that UTF-8 can hold."""
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, str):
            self.wrong(name, f"is {kind_of(value)}; write a text")
            return default
        if not encodable(value):
            self.wrong(name, "holds half a surrogate pair, which is no character; write whole characters")
            return default
        return value

    def boolean(self, name: str, default: bool = False) -> bool:
        """True or False."""
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.wrong(name, f"is {kind_of(value)}; write true or false")
            return default
        return value

    def integer(self, name: str, default: int) -> int:
        """A whole number."""
        value = self.raw(name)
        if value is None:
            return default
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            self.wrong(name, f"is {kind_of(value)}; write a whole number")
            return default
        return value

    def number(self, name: str, default: float) -> float:
        """A number."""
        value = self.raw(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.wrong(name, f"is {kind_of(value)}; write a number")
            return default
        return as_float(value)

    def texts(self, name: str) -> tuple[str, ...]:
        """A text or a list of texts, as a list."""
        value = self.raw(name)
        if value is None:
            return ()
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list) or not all(
            isinstance(item, str) and encodable(item) for item in items
        ):
            self.wrong(name, f"is {kind_of(value)}; write a text or a list of texts")
            return ()
        return tuple(items)

    def objects(self, name: str, most: int = MOST_OBJECTS) -> list[Fields]:
        """A list of at most so many objects; empty where it has more."""
        value = self.raw(name)
        if value is None:
            return []
        if not isinstance(value, list):
            self.wrong(name, f"is {kind_of(value)}; write a list")
            return []
        if len(value) > most:
            self.wrong(name, f"has {len(value)} entries; write at most {most}")
            return []
        found = []
        for index, item in enumerate(value):
            if isinstance(item, Mapping):
                found.append(Fields(item, self.problems, f"{self.at(name)}[{index}]"))
            else:
                self.wrong(f"{name}[{index}]", f"is {kind_of(item)}; write an object")
        return found

    def object(self, name: str) -> Fields:
        """An object; an empty one where it is absent."""
        value = self.raw(name)
        if value is not None and not isinstance(value, Mapping):
            self.wrong(name, f"is {kind_of(value)}; write an object")
            value = None
        return Fields(value or {}, self.problems, self.at(name))

    def unused(self, names: Iterable[str]) -> None:
        """Know these fields, whatever they hold: they change nothing here."""
        self._known.update(names)

    def refused(self, name: str, reason: str, *allowed: Any) -> None:
        """Refuse a field unless it is absent, null, or has one of these values, which ask for nothing."""
        value = self.raw(name)
        if value is not None and value not in allowed:
            self.wrong(name, reason)

    def finish(self) -> None:
        """Note every field that was not read."""
        for name in self._content:
            if self.problems.full:
                return  # nobody is told of more, and each costs a search among the known names
            if name not in self._known:
                close = difflib.get_close_matches(name, self._known, 1)
                hint = f"did you mean `{close[0]}`?" if close else "leave it out"
                self.wrong(printable(name), f"there is no such field; {hint}")


def as_float(value: float) -> float:
    """A number as a float; one that is too large for it as infinity, which no range allows."""
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def encodable(text: str) -> bool:
    """True where UTF-8 can hold the text."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def printable(name: str) -> str:
    """A caller's field name as it may stand in an answer: short and without control characters."""
    return "".join(c if c.isprintable() else "?" for c in name[:64])


def kind_of(value: Any) -> str:
    """What a JSON value is, in words."""
    kinds = {bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list"}
    return "null" if value is None else kinds.get(type(value), "an object")
