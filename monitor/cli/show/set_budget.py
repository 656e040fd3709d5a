"""The budget of a policy set as tables: what the set costs on benign texts, and what each policy spends of it."""

from __future__ import annotations

from rich.box import SIMPLE
from rich.console import Group
from rich.table import Table

from monitor.policy.files.set_budget import ANY, PHASES, MeasuredRate, Phase, SetBudget


def budget_tables(budget: SetBudget) -> Group:
    """What the set costs by length and by kind of text, then each policy's share of it."""
    return Group(_costs(budget), _policies(budget))


def _costs(budget: SetBudget) -> Table:
    table = Table(
        box=SIMPLE,
        padding=(0, 1, 0, 0),
        title=f"Benign texts on which any rule that acts fires; budget {budget.rate:.2%}",
        caption=f"Rates with 95 % intervals. Nothing is promised of fewer than {budget.sufficient} texts.",
    )
    phases = _phases(budget)
    table.add_column("texts")
    for phase in phases:
        table.add_column(f"{phase}s")
    rows: list[tuple[str, str, int, int | None]] = [("all", ANY, 0, None)]
    rows += [(_length(low, up), ANY, low, up) for low, up in budget.lengths]
    rows += [(kind, kind, 0, None) for kind in budget.kinds]
    for name, kind, low, up in rows:
        table.add_row(name, *(_cell(budget, phase, kind, low, up) for phase in phases))
    return table


def _phases(budget: SetBudget) -> list[Phase]:
    """The phases that there are texts of; requests with a prompt and a response only where there are any."""
    return [phase for phase in PHASES if phase != "request" or budget.rate_of(phase, ANY) is not None]


def _length(low: int, up: int | None) -> str:
    return f"over {low:,} tokens" if up is None else f"{low + 1:,}-{up:,} tokens"


def _cell(budget: SetBudget, phase: Phase, kind: str, low: int, up: int | None) -> str:
    rate = budget.rate_of(phase, kind, low, up)
    if rate is None or not rate.texts:
        return "no text"
    if rate.texts < budget.sufficient:
        return f"too few: {rate.fired} of {rate.texts:,}"
    return f"{rate.share:.2%} {100 * rate.low:.2f}-{100 * rate.high:.2f} of {rate.texts:,}"


def _policies(budget: SetBudget) -> Table:
    table = Table(
        box=SIMPLE,
        padding=(0, 1, 0, 0),
        title="What each policy spends: texts on which it fires, and on which it alone does",
    )
    table.add_column("policy")
    table.add_column("weight", justify="right")
    for phase in _phases(budget):
        table.add_column(f"{phase}s")
    for name, policy in budget.policies.items():
        shares = [_spent(budget.rate_of(phase, ANY), name) for phase in _phases(budget)]
        table.add_row(name, f"{policy.weight:g}", *(shares if policy.enforced else ["in shadow"]))
    return table


def _spent(rate: MeasuredRate | None, policy: str) -> str:
    if rate is None or not rate.texts:
        return ""
    fired, alone = rate.by_policy.get(policy, 0), rate.alone.get(policy, 0)
    return f"{fired / rate.texts:.2%}, {alone / rate.texts:.2%}"
