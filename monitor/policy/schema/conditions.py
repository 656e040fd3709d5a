"""Checks that the named conditions of a policy and the rules that combine them fit together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

from pydantic_core import PydanticCustomError

from monitor.policy.schema.base import FieldCheck, places, refuse
from monitor.policy.schema.check import CheckModel, ConditionModel
from monitor.policy.schema.expression import holds, names_in
from monitor.policy.schema.partial import Unknown

Path = tuple[str | int, ...]
T = TypeVar("T")


Conditions = Mapping[str, ConditionModel]


def condition_checks(conditions: Conditions | None, rules: Sequence[CheckModel]) -> Iterator[FieldCheck]:
    """Checks that refuse unknown names, cycles, unused conditions, and rules that hold before anything is reached."""
    named = conditions if conditions is not None else {}
    for i in places(rules):
        yield from _known(("rules", i, "when"), rules[i], named)
        yield partial(_idle, i, rules, named)
    for name in _or_nothing(named):
        yield from _known(("conditions", name, "when"), named[name], named)
        yield partial(_used, name, named, rules)
    yield partial(_in_order, named)


def _known(path: Path, part: CheckModel, conditions: Conditions) -> Iterator[FieldCheck]:
    """One check for each name in a part's `when`."""
    for name, below in _or_nothing(_names(part)):
        yield partial(_one_known, name, (*path, *below), conditions)


def _one_known(name: str, at: Path, conditions: Conditions) -> None:
    if name not in conditions:
        known = ", ".join(sorted(conditions)) or "none"
        raise refuse(at, f"there is no condition `{name}`; conditions: {known}")


def _names(part: CheckModel) -> Iterator[tuple[str, Path]]:
    if part.when is not None:
        yield from names_in(part.when)


def _or_nothing(values: Iterable[T]) -> Iterator[T]:
    """The values; none where they are not known."""
    with contextlib.suppress(Unknown):
        yield from values


def _used(name: str, conditions: Conditions, rules: Sequence[CheckModel]) -> None:
    parts = [*rules, *conditions.values()]
    if all(name != inner for part in parts for inner, _ in _names(part)):
        raise refuse(["conditions", name], f"no rule uses the condition `{name}`; remove it")


def _idle(i: int, rules: Sequence[CheckModel], conditions: Conditions) -> None:
    when = rules[i].when
    if when is None:
        return
    try:
        order = _in_order(conditions)
    except PydanticCustomError as error:
        raise Unknown from error
    idle: dict[str, bool] = {}
    for name in order:
        inner = conditions[name].when
        idle[name] = inner is not None and holds(inner, idle.__getitem__)
    if all(name in idle for name, _ in _names(rules[i])) and holds(when, idle.__getitem__):
        message = "holds before any condition is reached, so it would fire on every request"
        raise refuse(["rules", i, "when"], f"{message}; add a condition that must be reached")


def _in_order(conditions: Conditions) -> list[str]:
    """The conditions in order, each after those that it refers to.

    Refuses a circle; raises Unknown where a name stands for no condition.
    """
    done: dict[str, None] = {}

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            circle = " → ".join([*above[above.index(name) :], name])
            raise refuse(["conditions", name, "when"], f"the conditions go round in a circle: {circle}")
        if name not in conditions:
            raise Unknown
        expression = conditions[name].when
        if name not in done and expression is not None:
            for inner in dict.fromkeys(inner for inner, _ in names_in(expression)):
                visit(inner, (*above, name))
        done[name] = None

    for name in conditions:
        visit(name, ())
    return list(done)
