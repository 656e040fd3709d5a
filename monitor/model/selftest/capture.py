"""What flows at several places of a model while it reads the texts.

Knows hooks, batches and padding. Does not know dictionaries.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from monitor.errors import ModelError
from monitor.model.load.hook_points import Place, hidden_of, site_of
from monitor.model.load.model import LoadedModel

BATCH = 16
"""Texts in one pass."""


class _AllSeen(Exception):
    """Ends a forward pass when every place has been reached."""


@torch.no_grad()
def capture(
    loaded: LoadedModel, places: Sequence[Place], ids: Sequence[Sequence[int]]
) -> dict[Place, list[Tensor]]:
    """Of every text `[tokens, width]` in float32 on the CPU, at every place; passes end behind the last of them.

    ModelError where a place is not reached, or gives other rows than one per token.
    """
    found: dict[Place, list[Tensor]] = {place: [torch.empty(0)] * len(ids) for place in places}
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        seen = one_pass(loaded, places, _padded([ids[row] for row in rows]))
        for place, hidden in seen.items():
            for at, row in enumerate(rows):
                found[place][row] = hidden[at, : len(ids[row])].float().cpu()
    return found


def one_pass(
    loaded: LoadedModel, places: Sequence[Place], ids: Tensor, *, whole: bool = False
) -> Mapping[Place, Tensor]:
    """What is at the places when the model reads `ids` `[batch, time]`; with `whole` the pass runs to its end."""
    seen: dict[Place, Tensor] = {}
    twice: list[Place] = []
    mine = threading.get_ident()

    def hook_for(place: Place) -> Any:
        def hook(_module: object, _args: object, output: Any) -> None:
            if threading.get_ident() != mine:
                return
            (twice.append(place) if place in seen else seen.setdefault(place, hidden_of(output)))
            if len(seen) == len(places) and not whole:
                raise _AllSeen

        return hook

    handles = [site_of(loaded.layers, place).register_forward_hook(hook_for(place)) for place in places]
    try:
        with loaded.passes:
            loaded.model(input_ids=ids.to(loaded.device), use_cache=False)
    except _AllSeen:
        pass
    finally:
        for handle in handles:
            handle.remove()
    _check(seen, twice, places, ids)
    return seen


def _check(
    seen: Mapping[Place, Tensor], twice: Sequence[Place], places: Sequence[Place], ids: Tensor
) -> None:
    for place in places:
        if place not in seen:
            raise ModelError(f"the forward pass never reached {place}; the model cannot be tapped there")
        if seen[place].shape[:2] != ids.shape:
            raise ModelError(
                f"{place} gave rows for {tuple(seen[place].shape[:2])} tokens where the model read {tuple(ids.shape)}; "
                "it cannot be tapped there"
            )
    if twice:
        raise ModelError(f"{twice[0]} runs more than once in a pass; it cannot be tapped there")


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Padding stands on the right, where no token sees it."""
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = torch.tensor(row)
    return ids
