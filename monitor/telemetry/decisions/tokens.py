"""Readings of a request as a record holds them: sparse, exact, without a word of the text.

Special tokens (BOS, turn markers) and attention sinks are marked by position, because rules pass over them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from monitor.records import Failure, Phase, Readings, TokenBlock, WatchPlan

MOST_VALUES = 200_000
"""Readings in one record; of a request with more, none are kept."""

SPECIAL, PLAIN = 1, 0
"""Token ids in blocks that are read back: the real ones would be text."""


def column_names(watch: WatchPlan) -> list[int | str]:
    """What each column of readings is: a feature's index, `probe NAME` or `signal NAME`."""
    probes = [f"probe {probe.name}" for probe in watch.probes]
    return [*watch.features, *probes, *(f"signal {signal.value}" for signal in watch.signals)]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive tokens of one phase with what is not zero in them, or why they were not read."""

    phase: Phase
    start: int
    tokens: int
    special: tuple[int, ...] = ()
    """Positions of special tokens and of attention sinks."""
    values: tuple[tuple[int, int, float], ...] = ()
    """(token from the start, column, reading)."""
    failure: Failure | None = None


def stretch(block: TokenBlock, special: frozenset[int]) -> Stretch:
    """A block as it is kept."""
    rows, columns = np.nonzero(block.readings)
    found = block.readings[rows, columns]
    values = zip(rows.tolist(), columns.tolist(), (float(f"{v:.9g}") for v in found.tolist()), strict=True)
    places = enumerate(block.token_ids, block.start)
    marks = tuple(at for at, token_id in places if token_id in special or at in block.sinks)
    return Stretch(block.phase, block.start, len(block.token_ids), marks, tuple(values))


def to_json(stretches: Sequence[Stretch], columns: Sequence[int | str]) -> dict[str, Any]:
    """What a record holds under `readings`."""
    blocks: list[dict[str, Any]] = []
    for part in stretches:
        if part.failure is not None:
            blocks.append({"failure": part.failure.value})
            continue
        block: dict[str, Any] = {"phase": part.phase.value, "start": part.start, "tokens": part.tokens}
        if part.special:
            block["special"] = list(part.special)
        blocks.append({**block, "values": [list(value) for value in part.values]})
    return {"columns": list(columns), "blocks": blocks}


def from_json(content: Mapping[str, Any]) -> tuple[list[int | str], list[TokenBlock | Failure]]:
    """Columns, and blocks in order (a cause where tokens could not be read). ValueError where it is neither."""
    try:
        columns = list(content["columns"])
        blocks = [_block(part, len(columns)) for part in content["blocks"]]
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"the record's readings cannot be read: {error!r}") from None
    return columns, blocks


def _block(part: Mapping[str, Any], width: int) -> TokenBlock | Failure:
    if "failure" in part:
        return Failure(part["failure"])
    start, count = int(part["start"]), int(part["tokens"])
    readings: Readings = np.zeros((count, width), np.float32)
    for row, column, value in part["values"]:
        readings[row, column] = value
    marks = set(part.get("special", ()))
    ids = tuple(SPECIAL if start + row in marks else PLAIN for row in range(count))
    return TokenBlock(Phase(part["phase"]), start, ids, readings)
