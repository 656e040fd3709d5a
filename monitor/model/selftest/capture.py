"""Residuals of the test texts at several hook points of a model, without an engine or a tap."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from monitor.errors import ModelError
from monitor.model.load.hook_points import Place, hidden_of
from monitor.model.load.model import LoadedModel

BATCH = 16
"""Number of texts in one forward pass."""


class _AllSeen(Exception):
    """Raised by a hook to end a forward pass once every hook point has been reached."""


@torch.no_grad()
def capture(
    loaded: LoadedModel, places: Sequence[Place], ids: Sequence[Sequence[int]]
) -> dict[Place, list[Tensor]]:
    """For every hook point, the tensors `[tokens, width]` of all texts, in float32 on the CPU.

    `ids` holds the token ids of each text. Forward passes end after the last hook point. Raises ModelError where a hook
    point is not reached, is reached twice in a pass, or does not give one row for each token.
    """
    found: dict[Place, list[Tensor]] = {place: [torch.empty(0)] * len(ids) for place in places}
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        texts = [ids[row] for row in rows]
        seen = one_pass(loaded, places, _padded(texts), lengths=[len(text) for text in texts])
        for place, hidden in seen.items():
            for at, row in enumerate(rows):
                found[place][row] = hidden[at, : len(ids[row])].float().cpu()
    return found


def one_pass(
    loaded: LoadedModel,
    places: Sequence[Place],
    ids: Tensor,
    *,
    whole: bool = False,
    lengths: Sequence[int] = (),
) -> Mapping[Place, Tensor]:
    """Tensors `[batch, time, width]` at the hook points when the model reads token ids `[batch, time]`.

    With `whole` the forward pass runs to its end. `lengths` are those of the texts, where some are padded. Raises
    ModelError as `capture` does.
    """
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

    # Before any hook is there: a site that is new takes passes of its own.
    sites = [loaded.site(place) for place in places]
    handles = [site.register_forward_hook(hook_for(place)) for site, place in zip(sites, places, strict=True)]
    try:
        with loaded.reading(lengths or [ids.shape[1]] * len(ids)):
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
    """Token ids `[batch, time]`, padded on the right, where no token attends to the padding."""
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = torch.tensor(row)
    return ids
