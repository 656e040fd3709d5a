"""Blocks of one pass handed to the rules together, where the rules can take them so.

Knows tracks and their observers' `lead`. Does not know rules: a lead's `batch` scores ahead, and its `observe` then
answers as if it had scored alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from monitor.model.engine.rows import Rows
from monitor.model.engine.sequence import Track
from monitor.records import TokenBlock


def score_together(seen: Iterable[tuple[Track, Rows]]) -> None:
    """Let the rules look at the next block of every track at once, policy set by policy set."""
    groups: dict[int, tuple[Any, list[tuple[Any, TokenBlock]]]] = {}
    for track, rows in seen:
        lead = getattr(track.request.observer, "lead", None)
        batch = getattr(lead, "batch", None)
        block = None if batch is None else track.next_block(rows)
        if block is not None:
            groups.setdefault(id(batch), (batch, []))[1].append((lead, block))
    for batch, work in groups.values():
        if len(work) > 1:
            batch.ahead(work)
