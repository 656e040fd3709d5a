"""Frozen dataclasses as JSON and back, by their type annotations.

Fields with their default value are left out, and unknown fields are skipped when reading. Supported are dataclasses,
enums, tuples, text and numbers. Anything else is refused, so that no value is logged by its `repr` by accident.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import types
import typing
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

_PLAIN = (str, bool, int, type(None))
_NONE = object()
"""Marks a field without a default."""


def dump(value: Any) -> Any:
    """A value as JSON: enums by their names in lower case, floats with nine digits, null for NaN and infinity.

    Nine digits are exact for float32. Raises TypeError for a type that is not supported.
    """
    if isinstance(value, enum.Enum):
        return value.name.lower()
    if isinstance(value, float):
        return float(f"{value:.9g}") if math.isfinite(value) else None
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, (tuple, list)):
        return [dump(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _fields(value)
    raise TypeError(f"{type(value).__name__} cannot be part of a decision record")


def _fields(value: Any) -> dict[str, Any]:
    kind: Any = type(value)
    held = ((name, getattr(value, name), default) for name, default in _defaults(kind))
    return {name: dump(found) for name, found, default in held if default is _NONE or found != default}


@lru_cache(maxsize=64)
def _defaults(kind: Any) -> tuple[tuple[str, Any], ...]:
    """Names of a dataclass's fields with their defaults."""

    def default(field: dataclasses.Field[Any]) -> Any:
        if field.default_factory is not dataclasses.MISSING:
            return field.default_factory()
        return _NONE if field.default is dataclasses.MISSING else field.default

    return tuple((field.name, default(field)) for field in dataclasses.fields(kind))


def load(kind: Any, content: Any) -> Any:
    """A value of type `kind` from JSON. Raises ValueError where the content does not match the type."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return _union(kind, content)
    if typing.get_origin(kind) is tuple:
        if not isinstance(content, list):
            raise ValueError(f"expected a list, found {type(content).__name__}")
        return tuple(load(typing.get_args(kind)[0], item) for item in content)
    if dataclasses.is_dataclass(kind):
        return _instance(kind, content)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _member(kind, content)
    if kind is float:
        return math.nan if content is None else float(content)
    if not isinstance(content, kind):
        raise ValueError(f"expected {kind.__name__}, found {type(content).__name__}")
    return content


def _union(kind: Any, content: Any) -> Any:
    if content is None:
        return None
    (wanted,) = (option for option in typing.get_args(kind) if option is not type(None))
    return load(wanted, content)


def _member(kind: type[enum.Enum], content: Any) -> enum.Enum:
    for member in kind:
        if member.name.lower() == content:
            return member
    raise ValueError(f"there is no {kind.__name__} {content!r}")


def _instance(kind: Any, content: Any) -> Any:
    if not isinstance(content, Mapping):
        raise ValueError(f"expected a {kind.__name__}, found {type(content).__name__}")
    hints = _hints(kind)
    known = {name: load(hints[name], content[name]) for name in hints if name in content}
    try:
        return kind(**known)
    except TypeError:
        missing = sorted(set(hints) - set(content))
        raise ValueError(f"a {kind.__name__} lacks one of {', '.join(missing)}") from None


@lru_cache(maxsize=64)
def _hints(kind: Any) -> dict[str, Any]:
    found = typing.get_type_hints(kind)
    return {field.name: found[field.name] for field in dataclasses.fields(kind) if field.init}
