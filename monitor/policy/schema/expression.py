"""Combinations of named conditions by `all`, `any`, `not` and `at_least`, nested as needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from monitor.policy.schema.base import FieldCheck, Name, Strict, refuse

MOST_PARTS = 64


class AllOf(Strict):
    """Holds while every part holds."""

    all: Parts
    """Names of conditions, or further combinations, all of which must hold."""


class AnyOf(Strict):
    """Holds while at least one part holds."""

    any: Parts
    """Names of conditions, or further combinations, one of which must hold."""


class NotOf(Strict):
    """Holds while the part does not hold, and so before it is reached."""

    not_: Annotated[Expression, Field(alias="not")]
    """The name of a condition, or a further combination, that must not hold."""


class AtLeast(Strict):
    """Holds while at least so many of the parts hold."""

    at_least: Annotated[int, Field(ge=1, le=MOST_PARTS)]
    """How many of the parts must hold."""
    of: Parts
    """Names of conditions, or further combinations."""

    def checks(self) -> Iterable[FieldCheck]:
        """`at_least` is not larger than the number of parts."""
        return (self._possible,)

    def _possible(self) -> None:
        if self.at_least > len(self.of):
            raise refuse(["at_least"], f"{self.at_least} of {len(self.of)} parts can never hold")


AnyExpression = str | AllOf | AnyOf | NotOf | AtLeast

_WORDS: dict[str, type[Strict]] = {"all": AllOf, "any": AnyOf, "not": NotOf, "at_least": AtLeast}


def _shape(value: Any) -> str:
    if isinstance(value, dict):
        return next((f"({word})" for word in _WORDS if word in value), "(all)")
    return next((f"({word})" for word, model in _WORDS.items() if isinstance(value, model)), "(name)")


Expression = Annotated[
    Annotated[Name, Tag("(name)")]
    | Annotated[AllOf, Tag("(all)")]
    | Annotated[AnyOf, Tag("(any)")]
    | Annotated[NotOf, Tag("(not)")]
    | Annotated[AtLeast, Tag("(at_least)")],
    Discriminator(_shape),
]
"""The name of a condition, or a combination by `all`, `any`, `not` or `at_least`."""

Parts = Annotated[list[Expression], Field(min_length=1, max_length=MOST_PARTS)]

for _model in _WORDS.values():
    _model.model_rebuild()


def parts_of(expression: AnyExpression) -> list[AnyExpression]:
    """The parts that a combination combines; none for the name of a condition."""
    if isinstance(expression, AllOf):
        return list(expression.all)
    if isinstance(expression, AnyOf):
        return list(expression.any)
    if isinstance(expression, NotOf):
        return [expression.not_]
    return list(expression.of) if isinstance(expression, AtLeast) else []


def needed(expression: AnyExpression) -> int:
    """How many parts of a combination by `all`, `any` or `at_least` must hold."""
    if isinstance(expression, AtLeast):
        return expression.at_least
    return 1 if isinstance(expression, AnyOf) else len(parts_of(expression))


def names_in(
    expression: AnyExpression, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[str, tuple[str | int, ...]]]:
    """Every name in an expression with its path in the file below `path`, in the order of writing."""
    if isinstance(expression, str):
        yield expression, path
        return
    word = {AllOf: "all", AnyOf: "any", NotOf: "not", AtLeast: "of"}[type(expression)]
    for i, part in enumerate(parts_of(expression)):
        yield from names_in(part, (*path, word) if word == "not" else (*path, word, i))


def holds(expression: AnyExpression, reached: Callable[[str], bool]) -> bool:
    """Whether an expression holds. `reached` says of each named condition whether it holds."""
    if isinstance(expression, str):
        return reached(expression)
    count = sum(holds(part, reached) for part in parts_of(expression))
    return count == 0 if isinstance(expression, NotOf) else count >= needed(expression)
