"""What every part of a policy file is made of: strictness, names, and errors that point at a field.

A part says by `checks` which of its fields exclude or need each other. They run once its fields have the right types,
and, where `partial` reads a file that has mistakes, on whatever of it is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from monitor.policy.schema.partial import Partial, Unknown

NAME = r"^[a-z0-9]+(-[a-z0-9]+)*$"
CATEGORY = r"^[a-z0-9]+(_[a-z0-9]+)*$"
FILE = r"^\w[\w.-]*\.jsonl$"
DIGEST = r"^sha256:[0-9a-f]{64}$"

Name = Annotated[str, Field(pattern=NAME, max_length=64)]
FeatureIndex = Annotated[int, Field(ge=0, lt=2**31)]
Weight = Annotated[float, Field(ge=-1e9, le=1e9)]
"""Bounded, so that no sum of finite readings overflows: infinity minus infinity would never reach a threshold."""
Text = Annotated[str, Field(min_length=1, max_length=20_000)]

FieldCheck = Callable[[], object]
"""Raises what `refuse` makes where fields do not fit together."""


class Strict(BaseModel):
    """Base of every part of a file: unknown fields, coercions, NaN and infinity are refused."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    def checks(self) -> Iterable[FieldCheck]:
        """What must hold between fields, each check on its own so that one run finds everything."""
        return ()

    @model_validator(mode="wrap")
    @classmethod
    def _checked(cls, data: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        if isinstance(info.context, Partial):
            return info.context.part(cls, data, handler, lambda made: refusals(made.checks()))
        made = handler(data)
        found = refusals(made.checks())
        if found:
            raise PydanticCustomError("policy", "{text}", {**found[0], "more": found[1:]})
        return made


def refuse(at: Sequence[str | int], message: str, *, unsure: Sequence[str] = ()) -> PydanticCustomError:
    """An error of a whole part that points at one of its fields; `unsure` are others that may be what is meant."""
    return PydanticCustomError("policy", "{text}", {"at": list(at), "text": message, "unsure": list(unsure)})


def places(entries: Sequence[Any] | None) -> range:
    """The places in a list; none where it is left out or not known."""
    try:
        return range(len(entries or ()))
    except Unknown:
        return range(0)


def refusals(checks: Iterable[FieldCheck]) -> list[dict[str, Any]]:
    """What checks refuse: `at`, the path within the part, and `text`. A check of what is not known refuses nothing."""
    found: list[dict[str, Any]] = []
    for check in checks:
        try:
            check()
        except PydanticCustomError as error:
            found.append(dict(error.context or {}))
        except Unknown:
            continue
    return found
