"""The split of labelled rows and documents into those that may be learnt from and those that are measured on.

A row's side follows from a hash of its group, so it is the same on every machine and in every run.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

Side = Literal["train", "heldout"]


@dataclass(frozen=True, slots=True)
class Split:
    """How much may be learnt from, and which draw of it."""

    train_fraction: float = 0.5
    """Share of the groups (of the documents) that may be learnt from, 0 to 1."""
    seed: int = 0
    """Another number draws another split of the same size."""

    def side(self, source: str, group: str, text: str) -> Side:
        """The side of a labelled row; arguments as in `split_of`."""
        return split_of(source, group, text, self.train_fraction, self.seed)

    def document_side(self, opening: str) -> Side:
        """The side of a document that opens so; what opens alike stays together."""
        return _side(f"half:{opening}", self.train_fraction, self.seed)


def split_of(source: str, group: str, text: str, train_fraction: float = 0.5, seed: int = 0) -> Side:
    """The side of a labelled row: `train` or `heldout`.

    Args:
        source: The file's name without suffix (`persona_no_shut_down`); a leading folder and `.jsonl` are ignored.
        group: The row's group. Rows of one group share a prompt, a pair or a template and stay together.
        text: The row's text. It takes the place of a group that is empty or that only repeats the source's name.
        train_fraction: Share of the groups that are `train`. Groups of a smaller share are also in a larger one.
        seed: Another number draws another split. The bundled model was trained on the half of seed 0.
    """
    name = source.rsplit("/", 1)[-1].removesuffix(".jsonl")
    key = normalised(text) if not group or group_names_source(name, group) else group
    return _side(f"{name}:{key}", train_fraction, seed)


def _side(key: str, train_fraction: float, seed: int) -> Side:
    digest = hashlib.sha256((key if seed == 0 else f"{seed}:{key}").encode()).digest()
    # The lowest bit of the first byte decides about halves, so it becomes the highest bit of the fraction.
    place = int(f"{int.from_bytes(digest[:8], 'little'):064b}"[::-1], 2) / 2**64
    return "train" if place < train_fraction else "heldout"


def normalised(text: str) -> str:
    """Letters and digits in lower case, single spaces between: what makes two rows the same text."""
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def group_names_source(name: str, group: str) -> bool:
    """Whether a group is the name of its source, or the end of it, and so ties no rows together."""
    plain = group.replace("-", "_")
    return bool(plain) and (name == plain or name.endswith("_" + plain))
