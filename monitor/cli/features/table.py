"""A table of features with numbers and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table
from rich.text import Text

from monitor.cli.show.printable import one_line


@dataclass(frozen=True)
class FeatureTableRow:
    """One feature; every row of a table has the same numbers."""

    feature: int
    numbers: dict[str, Any]
    """By column; None where it is not known."""
    label: str
    notes: dict[str, str] = field(default_factory=dict)
    """Further words by column, after the label; not for JSON."""

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {"feature": self.feature} | self.numbers | {"label": self.label}


def feature_table(rows: Sequence[FeatureTableRow]) -> Table:
    """Right-aligned numbers, labels last."""
    table = Table(box=None, pad_edge=False)
    table.add_column("feature", justify="right")
    for column in rows[0].numbers if rows else ():
        table.add_column(column, justify="right")
    for column in ("label", *(rows[0].notes if rows else ())):
        table.add_column(column, overflow="fold")
    for row in rows:
        cells = (_shown(column, value) for column, value in row.numbers.items())
        words = (Text(one_line(word)) for word in (row.label, *row.notes.values()))
        table.add_row(str(row.feature), *cells, *words)
    return table


def _shown(column: str, value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3%}" if column == "density" else f"{value:.3g}"
    return str(value)
