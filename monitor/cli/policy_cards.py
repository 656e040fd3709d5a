"""Locks as a table for people.

Knows cards. Does not know how they were measured.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE
from rich.table import Table

from monitor.policy.lock import LockModel

CAPTION = (
    "features / clamps; AUROC (95 %) against own negatives; recall where 1 % of benign texts fire; share of own "
    "negatives that fire there too; AUROC against look-alikes, of a linear probe and of a bag of words"
)


def card_table(locks: Sequence[LockModel]) -> Table:
    """One row per lock: the rule's held-out numbers beside those of the baselines."""
    table = Table(
        box=SIMPLE,
        padding=(0, 1, 0, 0),
        title="Held-out measurements, cross-validated over groups",
        caption=CAPTION,
    )
    for name in ("policy", "f/c", "AUROC", "recall", "own neg", "hard", "probe", "words", "maturity"):
        table.add_column(name, no_wrap=True)
    for lock in locks:
        table.add_row(*_row(lock))
    return table


def _row(lock: LockModel) -> list[str]:
    head = [lock.policy, f"{len(lock.features) or 'pinned'}/{len(lock.suppress)}"]
    card = lock.card
    if card is None:
        return [*head, *[""] * 7]
    mine = card.methods["policy"]
    return [
        *head,
        f"{mine.auroc:.2f} {mine.auroc_low:.2f}-{mine.auroc_high:.2f}",
        f"{mine.recall:.2f}",
        f"{card.negative_rate:.2f}",
        "" if card.hard_negative_auroc is None else f"{card.hard_negative_auroc:.2f}",
        f"{card.methods['linear_probe'].auroc:.2f}",
        f"{card.methods['bag_of_words'].auroc:.2f}",
        card.maturity,
    ]
