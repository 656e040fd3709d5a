"""What every part of a policy file is made of: strictness, names, and errors that point at a field."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

NAME = r"^[a-z0-9]+(-[a-z0-9]+)*$"
CATEGORY = r"^[a-z0-9]+(_[a-z0-9]+)*$"
FILE = r"^\w[\w.-]*\.jsonl$"
DIGEST = r"^sha256:[0-9a-f]{64}$"

Name = Annotated[str, Field(pattern=NAME, max_length=64)]
FeatureIndex = Annotated[int, Field(ge=0, lt=2**31)]
Text = Annotated[str, Field(min_length=1, max_length=20_000)]


class Strict(BaseModel):
    """Base of every part of a file: unknown fields, coercions, NaN and infinity are refused."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def refuse(at: Sequence[str | int], message: str) -> PydanticCustomError:
    """An error of a whole part that points at one of its fields."""
    return PydanticCustomError("policy", "{text}", {"at": list(at), "text": message})


def every(checks: Iterable[Callable[[], None]]) -> None:
    """Run all checks; what they refuse comes as one error that holds all."""
    found: list[dict[str, object]] = []
    for check in checks:
        try:
            check()
        except PydanticCustomError as error:
            context = dict(error.context or {})
            more = context.pop("more", [])
            found += [context, *more]
    if found:
        raise PydanticCustomError("policy", "{text}", {**found[0], "more": found[1:]})
