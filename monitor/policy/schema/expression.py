"""Conditions combined: `all`, `any`, `not` and `at_least` over names.

Knows the shape of an expression and what it says about a set of reached conditions. Does not know what a condition is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from monitor.policy.schema.base import FieldCheck, Name, Strict, refuse

MOST_PARTS = 64


class AllOf(Strict):
    """Every part holds."""

    all: Parts


class AnyOf(Strict):
    """At least one part holds."""

    any: Parts


class NotOf(Strict):
    """The part does not hold, or not yet."""

    not_: Annotated[Expression, Field(alias="not")]


class AtLeast(Strict):
    """So many of the parts hold."""

    at_least: Annotated[int, Field(ge=1, le=MOST_PARTS)]
    of: Parts

    def checks(self) -> Iterable[FieldCheck]:
        """It can hold."""
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
"""The name of a condition, or one of the four combinations."""

Parts = Annotated[list[Expression], Field(min_length=1, max_length=MOST_PARTS)]

for _model in _WORDS.values():
    _model.model_rebuild()


def parts_of(expression: AnyExpression) -> list[AnyExpression]:
    """The parts that an expression combines; none for a name."""
    if isinstance(expression, AllOf):
        return list(expression.all)
    if isinstance(expression, AnyOf):
        return list(expression.any)
    if isinstance(expression, NotOf):
        return [expression.not_]
    return list(expression.of) if isinstance(expression, AtLeast) else []


def needed(expression: AnyExpression) -> int:
    """How many of its parts must hold, for all but a name and `not`."""
    if isinstance(expression, AtLeast):
        return expression.at_least
    return 1 if isinstance(expression, AnyOf) else len(parts_of(expression))


def names_in(
    expression: AnyExpression, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[str, tuple[str | int, ...]]]:
    """Every name in an expression with its path below it, in the order of writing."""
    if isinstance(expression, str):
        yield expression, path
        return
    word = {AllOf: "all", AnyOf: "any", NotOf: "not", AtLeast: "of"}[type(expression)]
    for i, part in enumerate(parts_of(expression)):
        yield from names_in(part, (*path, word) if word == "not" else (*path, word, i))


def holds(expression: AnyExpression, reached: Callable[[str], bool]) -> bool:
    """Whether an expression holds, given which names do."""
    if isinstance(expression, str):
        return reached(expression)
    count = sum(holds(part, reached) for part in parts_of(expression))
    return count == 0 if isinstance(expression, NotOf) else count >= needed(expression)
