"""Which labelled rows may be trained on: a fixed, hash-made half of the groups.

Knows only strings. Measurements call `split_of` on the same rows and so see exactly the half that no training read.
"""

import hashlib
from typing import Literal

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
