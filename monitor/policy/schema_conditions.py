"""Whether the conditions of a policy fit together.

Knows names and expressions. Does not know scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from monitor.policy.schema_base import every, refuse
from monitor.policy.schema_check import CheckModel, ConditionModel
from monitor.policy.schema_when import AnyExpression, holds, names_in

Path = tuple[str | int, ...]


def check_conditions(conditions: Mapping[str, ConditionModel], rules: Sequence[CheckModel]) -> None:
    """Refuse unknown names, circles, conditions that nobody uses, and rules that would fire on nothing."""
    used = {name for _, expression in _expressions(conditions, rules) for name, _ in names_in(expression)}
    every(
        [
            *(partial(_known, p, e, conditions) for p, e in _expressions(conditions, rules)),
            *(partial(_used, name, used) for name in conditions),
        ]
    )
    order = _in_order(conditions)
    idle: dict[str, bool] = {}
    for name in order:
        inner = conditions[name].when
        idle[name] = inner is not None and holds(inner, idle.__getitem__)
    for i, rule in enumerate(rules):
        if rule.when is not None and holds(rule.when, idle.__getitem__):
            message = "holds before any condition is reached, so it would fire on every request"
            raise refuse(["rules", i, "when"], f"{message}; add a condition that must be reached")


def _known(path: Path, expression: AnyExpression, conditions: Mapping[str, ConditionModel]) -> None:
    for name, below in names_in(expression):
        if name not in conditions:
            known = ", ".join(sorted(conditions)) or "none"
            raise refuse([*path, *below], f"there is no condition `{name}`; conditions: {known}")


def _used(name: str, used: set[str]) -> None:
    if name not in used:
        raise refuse(["conditions", name], f"no rule uses the condition `{name}`; remove it")


def _expressions(
    conditions: Mapping[str, ConditionModel], rules: Sequence[CheckModel]
) -> Iterator[tuple[Path, AnyExpression]]:
    for i, rule in enumerate(rules):
        if rule.when is not None:
            yield ("rules", i, "when"), rule.when
    for name, condition in conditions.items():
        if condition.when is not None:
            yield ("conditions", name, "when"), condition.when


def _in_order(conditions: Mapping[str, ConditionModel]) -> list[str]:
    """Every condition after those that it refers to; refuses a circle."""
    done: dict[str, None] = {}

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            circle = " → ".join([*above[above.index(name) :], name])
            raise refuse(["conditions", name, "when"], f"the conditions go round in a circle: {circle}")
        expression = conditions[name].when
        if name not in done and expression is not None:
            for inner in dict.fromkeys(inner for inner, _ in names_in(expression)):
                visit(inner, (*above, name))
        done[name] = None

    for name in conditions:
        visit(name, ())
    return list(done)
