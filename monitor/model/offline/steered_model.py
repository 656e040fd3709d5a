"""What editing the residual stream does to a model: texts read, texts written, logits moved. No serving.

Knows one place of a model, a later layer and edits as functions of rows. Does not know policies, nor why an edit is
made. Edits are applied to prompt and response tokens alike, as the engine does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from monitor.model.load.hook_points import hidden_of, replace_hidden
from monitor.model.offline.residuals import Harvester

Edit = Callable[[Tensor, int], Tensor]
"""Residuals `[rows, time, d_model]` to edited ones; the number is the position of the first of them."""


def unchanged(x: Tensor, _first: int) -> Tensor:
    """The edit that edits nothing."""
    return x


@dataclass(frozen=True)
class Pass:
    """One forward pass over padded texts."""

    logits: Tensor
    """`[texts, time, vocabulary]`"""
    edited: Tensor
    """Residuals at the place, after the edit, `[texts, time, d_model]`."""
    later: Tensor | None
    """Residuals after the later layer, of the same shape."""


class SteeredModel:
    """A model with an edit at a harvester's place. Not for use beside an engine: hooks belong to the module."""

    def __init__(self, harvester: Harvester, later: int | None = None) -> None:
        self._harvester, self._loaded, self._later = harvester, harvester.loaded, later

    @torch.no_grad()
    def read(self, ids: Tensor, edit: Edit) -> Pass:
        """Run padded token ids `[texts, time]`, which begin at position 0, under an edit."""
        with self._hooked(edit, 0) as seen:
            logits = self._loaded.model(input_ids=ids.to(self._loaded.device), use_cache=False).logits
        there = {name: found.to(logits.device).float() for name, found in seen.items()}
        return Pass(logits.float(), there["edited"], there.get("later"))

    @torch.no_grad()
    def write(self, ids: Tensor, edit: Edit, chance: Tensor, temperature: float) -> Tensor:
        """New tokens `[texts, new]` behind prompts of one length `[texts, time]`.

        `chance` `[texts, new]` in [0, 1) decides what is sampled, so that edits can be compared on the same luck;
        a temperature of 0 is greedy. Runs on past ends of text.
        """
        loaded, cache, written = self._loaded, None, []
        following, first = ids.to(loaded.device), 0
        for number in range(chance.shape[1]):
            with self._hooked(edit, first):
                out: Any = loaded.model(input_ids=following, past_key_values=cache, use_cache=True)
            cache, first = out.past_key_values, first + following.shape[1]
            following = _drawn(out.logits[:, -1].float(), chance[:, number].to(loaded.device), temperature)
            written.append(following.cpu())
        return torch.cat(written, dim=1)

    @contextmanager
    def _hooked(self, edit: Edit, first: int) -> Iterator[dict[str, Tensor]]:
        seen: dict[str, Tensor] = {}

        def change(_module: object, _args: object, output: Any) -> Any:
            seen["edited"] = edit(hidden_of(output), first)
            return replace_hidden(output, seen["edited"])

        def look(_module: object, _args: object, output: Any) -> None:
            seen["later"] = hidden_of(output)

        with self._loaded.passes:
            handles = [self._harvester.site.register_forward_hook(change)]
            if self._later is not None:
                handles.append(self._loaded.layers[self._later].register_forward_hook(look))
            try:
                yield seen
            finally:
                for handle in handles:
                    handle.remove()


def _drawn(logits: Tensor, chance: Tensor, temperature: float) -> Tensor:
    """The next token of every row, `[rows, 1]`."""
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    mass = (logits / temperature).softmax(-1).double().cumsum(-1)
    wanted = chance.double().unsqueeze(-1) * mass[:, -1:]
    return (mass <= wanted).sum(-1, keepdim=True).clamp_max(logits.shape[-1] - 1)


def padded(ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids `[texts, time]` padded on the right, and `[texts, time]` which of them are real."""
    longest = max(map(len, ids))
    rows = torch.zeros(len(ids), longest, dtype=torch.int64)
    for row, own in enumerate(ids):
        rows[row, : len(own)] = torch.tensor(list(own))
    ends = torch.tensor([len(own) for own in ids])
    return rows, torch.arange(longest)[None, :] < ends[:, None]
