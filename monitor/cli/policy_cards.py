"""Locks as a table for people.

Knows cards. Does not know how they were measured.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from monitor.policy.lock import LockModel, Measure

COLUMNS = (
    "policy",
    "features",
    "clamps",
    "AUROC",
    "95 %",
    "recall @1 %",
    "hard",
    "probe",
    "words",
    "maturity",
)


def card_table(locks: Sequence[LockModel]) -> Table:
    """One row per lock: the rule's held-out numbers beside those of the baselines."""
    table = Table(*COLUMNS, title="Held-out measurements, own examples, cross-validated over groups")
    for lock in locks:
        table.add_row(*_row(lock))
    return table


def _row(lock: LockModel) -> list[str]:
    head = [lock.policy, str(len(lock.features) or "pinned"), str(len(lock.suppress))]
    if lock.card is None:
        return [*head, *[""] * 8]
    card = lock.card
    mine: Measure = card.methods["policy"]
    hard = "" if card.hard_negative_auroc is None else f"{card.hard_negative_auroc:.2f}"
    return [
        *head,
        f"{mine.auroc:.3f}",
        f"{mine.auroc_low:.2f}-{mine.auroc_high:.2f}",
        f"{mine.recall:.2f}",
        f"{card.negative_rate:.2f}",
        hard,
        f"{card.methods['linear_probe'].auroc:.3f}",
        f"{card.methods['bag_of_words'].auroc:.3f}",
        card.maturity,
    ]
