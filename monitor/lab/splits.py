"""Which labelled rows may be trained on: a fixed, hash-made half of the groups.

Knows only strings. Measurements call `split_of` on the same rows and so see exactly the half that no training read.
"""

import hashlib
import json
from pathlib import Path
from typing import Literal, TypedDict

Split = Literal["train", "heldout"]


def split_of(source: str, group: str, text: str) -> Split:
    """The half to which a labelled row belongs, the same on every machine.

    Args:
        source: The file's stem (`persona_no_shut_down`); a leading folder and a suffix are ignored.
        group: The row's group. Rows of one group share a prompt, a pair or a template and stay together.
        text: The row's text, used only where the group says nothing.

    Some sources give one group to all their rows, named like the source itself (the persona files). Their rows are
    independent statements, so there the normalised text takes the group's place.
    """
    name = source.rsplit("/", 1)[-1].removesuffix(".jsonl")
    key = normalised(text) if _names_source(name, group) else group
    digest = hashlib.sha256(f"{name}:{key}".encode()).digest()
    return "train" if digest[0] % 2 == 0 else "heldout"


def normalised(text: str) -> str:
    """Letters and digits in lower case, single spaces between: what makes two rows the same text."""
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def _names_source(name: str, group: str) -> bool:
    plain = group.replace("-", "_")
    return bool(plain) and (name == plain or name.endswith("_" + plain))


class LabelledRow(TypedDict):
    """One line of a labelled file."""

    text: str
    label: int
    kind: str
    group: str


def labelled_rows(path: Path) -> list[LabelledRow]:
    """The rows of one labelled file.

    Raises:
        ValueError: A line is not a row; the message names file, line and fault.
    """
    rows: list[LabelledRow] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if line:
            rows.append(_row(path, number, line))
    return rows


def _row(path: Path, number: int, line: str) -> LabelledRow:
    fields = {"text": str, "label": int, "kind": str, "group": str}
    try:
        row = json.loads(line)
    except json.JSONDecodeError as fault:
        raise ValueError(f"{path}:{number}: not JSON ({fault.msg}); a line holds one object") from fault
    for field, kind in fields.items():
        if not isinstance(row, dict) or not isinstance(row.get(field), kind):
            raise ValueError(f"{path}:{number}: needs {field!r} of type {kind.__name__}")
    return LabelledRow(text=row["text"], label=row["label"], kind=row["kind"], group=row["group"])
