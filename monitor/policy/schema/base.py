"""The base of every part of a policy file: strict models, the types of names, and errors that point at a field.

The `checks` of a part say which of its fields exclude or need each other. They run once all its fields have the right
types. While `partial` reads a file that has mistakes, they run on those fields that are right.
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
"""Weights are bounded, so that no score overflows. Infinity minus infinity would be NaN, which never fires."""
Text = Annotated[str, Field(min_length=1, max_length=20_000)]

FieldCheck = Callable[[], object]
"""Raises the error that `refuse` returns where fields do not fit together."""


class Strict(BaseModel):
    """Base of every part of a file. It refuses unknown fields, coercions, NaN and infinity."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    def checks(self) -> Iterable[FieldCheck]:
        """Checks of fields against each other. Each runs on its own, so that one run finds every mistake."""
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
    """The error that a check raises. It points at `at`, a path within the part that is checked.

    `unsure` names fields that the writer may have meant instead. While `partial` reads a file, these count as unknown
    from then on, so that no other check reports them.
    """
    return PydanticCustomError("policy", "{text}", {"at": list(at), "text": message, "unsure": list(unsure)})


def places(entries: Sequence[Any] | None) -> range:
    """The indices of a list; none where the list is left out or is not known."""
    try:
        return range(len(entries or ()))
    except Unknown:
        return range(0)


def refusals(checks: Iterable[FieldCheck]) -> list[dict[str, Any]]:
    """What the checks refuse: for each mistake its path within the part (`at`) and its `text`.

    A check that needs a field whose value is not known refuses nothing.
    """
    found: list[dict[str, Any]] = []
    for check in checks:
        try:
            check()
        except PydanticCustomError as error:
            found.append(dict(error.context or {}))
        except Unknown:
            continue
    return found
