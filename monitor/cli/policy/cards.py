"""Locks as tables for people.

Knows cards. Does not know how they were measured.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE
from rich.console import Group
from rich.table import Table

from monitor.policy.files.lock import LockModel, Separation

CAPTION = (
    "f/c: features and clamps. AUROC (95 %) against own negatives. recall: where 1 % of benign texts fire (95 %). "
    "caught: positives on which the rules fire as locked. topic: own negatives that fire at 1 % too."
)
METHODS = {
    "policy": "policy",
    "features": "features",
    "probe": "probe",
    "linear_probe": "linear",
    "difference_of_means": "means",
    "bag_of_words": "words",
    "random_features": "random",
}
"""Methods of a card, and what their columns are called."""


def card_table(locks: Sequence[LockModel]) -> Group:
    """One row per lock: the rule's held-out numbers, and below those of the baselines."""
    cards = _table("Held-out measurements, cross-validated over groups", CAPTION)
    for name in ("policy", "f/c", "AUROC", "recall", "caught", "topic", "look-alikes", "maturity"):
        cards.add_column(name, no_wrap=True)
    beside = _table("Beside it: AUROC, recall in %", "probe: token by token; linear, means: mean residual")
    beside.add_column("policy", no_wrap=True)
    for name in METHODS.values():
        beside.add_column(name, no_wrap=True)
    for lock in locks:
        cards.add_row(*_row(lock))
        if lock.card is not None:
            beside.add_row(lock.policy, *(_short(lock.card.methods.get(name)) for name in METHODS))
    return Group(cards, beside)


def _table(title: str, caption: str) -> Table:
    return Table(box=SIMPLE, padding=(0, 1, 0, 0), title=title, caption=caption)


def _row(lock: LockModel) -> list[str]:
    head = [lock.policy, f"{len(lock.features) or lock.detector}/{len(lock.suppress)}"]
    caught = "/".join(f"{r.caught:.2f}" for r in lock.rules.values() if r.caught is not None)
    card = lock.card
    if card is None:
        return [*head, "", "", caught, "", "", ""]
    mine = card.methods["policy"]
    return [
        *head,
        f"{mine.auroc:.2f} {mine.auroc_low:.2f}-{mine.auroc_high:.2f}",
        f"{mine.recall:.2f} {mine.recall_low:.2f}-{mine.recall_high:.2f}",
        caught,
        f"{card.negative_rate:.2f}",
        "" if card.hard_negative_auroc is None else f"{card.hard_negative_auroc:.2f}",
        card.maturity,
    ]


def _short(measure: Separation | None) -> str:
    return "" if measure is None else f"{measure.auroc:.2f} {100 * measure.recall:3.0f}"
