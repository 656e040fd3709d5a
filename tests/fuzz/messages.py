"""Mutations of protobuf messages that keep the structure: fields set to odd values, dropped, doubled, nested.

They follow the descriptors alone, so a new field is mutated without anything to add here.
"""

from __future__ import annotations

import math
import random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.message import Message

TEXTS = (
    "", "a", "word " * 30, "word " * 3000, "lie", "bomb", "sick", "end", "\0", "\n", "é" * 10, "𝔘" * 100, "\u202e",
    "ﷺ" * 50, "../../etc/passwd", "%s%n", "a" * 100_000, "</s>", "<bos>", "{{ messages }}", "\ufeff", "\u200d" * 50,
)  # fmt: skip
WHOLE = (0, 1, 2, 3, 15, 16, 63, 64, 65, 255, 256, 257, 2**31 - 1)
SIGNED = (*WHOLE, -1, -2, -(2**31))
LONG = (*SIGNED, 2**32, 2**63 - 1, -(2**63))
REAL = (0.0, -0.0, 1.0, -1.0, 1e-9, 0.01, 0.5, 99.9, 100.0, 101.0, 1e30, -1e30, math.nan, math.inf, -math.inf)
_MOST = 80


def varied(message: Message, chance: random.Random) -> Message:
    """The message itself, with one to four of its fields changed, at any depth."""
    for _ in range(1 + chance.randrange(4)):
        _vary(message, chance)
    return message


def _vary(message: Any, chance: random.Random) -> None:
    if not message.DESCRIPTOR.fields:
        return
    field = chance.choice(message.DESCRIPTOR.fields)
    if chance.random() < 0.1:
        message.ClearField(field.name)
    elif field.is_repeated:
        _vary_list(message, field, chance)
    elif field.message_type is not None:
        inner = getattr(message, field.name)
        inner.SetInParent()
        _vary(inner, chance)
    else:
        setattr(message, field.name, _value(field, chance))


def _vary_list(message: Any, field: Any, chance: random.Random) -> None:
    listed = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return
    for _ in range(chance.choice((1, 1, 1, 2, 17, 65))):
        if len(listed) >= _MOST:
            break
        if field.message_type is None:
            listed.append(_value(field, chance))
        else:
            _vary(listed.add(), chance)
    if len(listed) > 1 and chance.random() < 0.3:
        del listed[chance.randrange(len(listed))]


def _value(field: Any, chance: random.Random) -> Any:
    if field.type == Field.TYPE_STRING:
        return chance.choice(TEXTS)
    if field.type == Field.TYPE_BYTES:
        return chance.randbytes(chance.randrange(100))
    if field.type == Field.TYPE_BOOL:
        return chance.random() < 0.5
    if field.type in (Field.TYPE_DOUBLE, Field.TYPE_FLOAT):
        return chance.choice(REAL)
    if field.type == Field.TYPE_ENUM:
        return chance.choice((0, 1, 2, 3, 99, -1))
    unsigned = field.type in (Field.TYPE_UINT32, Field.TYPE_UINT64, Field.TYPE_FIXED32, Field.TYPE_FIXED64)
    if field.cpp_type in (Field.CPPTYPE_INT64, Field.CPPTYPE_UINT64):
        return chance.choice(WHOLE if unsigned else LONG)
    return chance.choice(WHOLE if unsigned else SIGNED)
