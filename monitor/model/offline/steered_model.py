"""A model whose residual stream is edited while it reads or writes texts, to measure what the edit does.

Edits apply to prompt and response tokens alike, as clamps do in the engine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from monitor.dictionary.residual_signals import sinks
from monitor.model.load.hook_points import hidden_of, replace_hidden
from monitor.model.offline.residuals import Harvester

BATCH_TOKENS = 4096
"""Tokens of a batch with padding."""

Edit = Callable[[Tensor, int], Tensor]
"""Maps residuals `[rows, time, d_model]` to edited ones. The number is the position of the first column in the
sequence."""


def unchanged(x: Tensor, _first: int) -> Tensor:
    """The edit that changes nothing, for comparison."""
    return x


@dataclass(frozen=True)
class SteeredPass:
    """Tensors from one forward pass over padded texts."""

    logits: Tensor
    """`[texts, time, vocabulary]`"""
    edited: Tensor
    """`[texts, time, d_model]` residuals at the hook point, after the edit."""
    sinks: Tensor
    """`[texts, time]` bool: attention sinks, by the residuals before the edit."""
    later: Tensor | None
    """`[texts, time, d_model]` residuals after the later layer; None where none was asked for."""


class SteeredModel:
    """A model with an edit at a harvester's hook point. Do not use it while an engine runs the same model.

    `limit` is the pair's norm limit, above which a residual is an attention sink's.
    """

    def __init__(self, harvester: Harvester, later: int | None = None, *, limit: float = math.inf) -> None:
        self._harvester, self._loaded, self._later = harvester, harvester.loaded, later
        self._limit = limit

    @torch.no_grad()
    def read(self, ids: Tensor, edit: Edit, lengths: Sequence[int] | None = None) -> SteeredPass:
        """Run token ids `[texts, time]`, which begin at position 0, under an edit.

        `lengths` are those of the texts where some rows are padded on the right.
        """
        with self._hooked(edit, 0, lengths or [ids.shape[1]] * len(ids)) as seen:
            logits = self._loaded.model(input_ids=ids.to(self._loaded.device), use_cache=False).logits
        there = {name: found.to(logits.device) for name, found in seen.items()}
        later = there.get("later")
        return SteeredPass(
            logits.float(), there["edited"].float(), there["sinks"], None if later is None else later.float()
        )

    @torch.no_grad()
    def write(self, ids: Tensor, edit: Edit, chance: Tensor, temperature: float) -> Tensor:
        """Generate tokens `[texts, new]` after prompts of equal length `[texts, time]`, under an edit.

        `chance` `[texts, new]` holds the random numbers in [0, 1) that sampling uses, so that edits can be compared
        with the same ones. A temperature of 0 is greedy. Generation does not stop at end-of-text tokens.
        """
        loaded, cache, written = self._loaded, None, []
        following, first = ids.to(loaded.device), 0
        for number in range(chance.shape[1]):
            with self._hooked(edit, first, [ids.shape[1] + chance.shape[1]] * len(ids)):
                out: Any = loaded.model(input_ids=following, past_key_values=cache, use_cache=True)
            cache, first = out.past_key_values, first + following.shape[1]
            following = _drawn(out.logits[:, -1].float(), chance[:, number].to(loaded.device), temperature)
            written.append(following.cpu())
        return torch.cat(written, dim=1)

    @contextmanager
    def _hooked(self, edit: Edit, first: int, lengths: Sequence[int]) -> Iterator[dict[str, Tensor]]:
        seen: dict[str, Tensor] = {}

        def change(_module: object, _args: object, output: Any) -> Any:
            x = hidden_of(output)
            positions = torch.arange(first, first + x.shape[1], device=x.device).expand(x.shape[:2])
            seen["sinks"], seen["edited"] = sinks(x, positions, self._limit), edit(x, first)
            return replace_hidden(output, seen["edited"])

        def look(_module: object, _args: object, output: Any) -> None:
            seen["later"] = hidden_of(output)

        with self._loaded.reading(lengths):
            handles = [self._harvester.site.register_forward_hook(change)]
            if self._later is not None:
                handles.append(self._loaded.layers[self._later].register_forward_hook(look))
            try:
                yield seen
            finally:
                for handle in handles:
                    handle.remove()


def _drawn(logits: Tensor, chance: Tensor, temperature: float) -> Tensor:
    """The next token of every row, `[rows, 1]`, from logits `[rows, vocabulary]`."""
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    mass = (logits / temperature).softmax(-1).double().cumsum(-1)
    wanted = chance.double().unsqueeze(-1) * mass[:, -1:]
    return (mass <= wanted).sum(-1, keepdim=True).clamp_max(logits.shape[-1] - 1)


def padded(ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids `[texts, time]` padded on the right, and a mask `[texts, time]` of the real ones."""
    longest = max(map(len, ids))
    rows = torch.zeros(len(ids), longest, dtype=torch.int64)
    for row, own in enumerate(ids):
        rows[row, : len(own)] = torch.tensor(list(own))
    ends = torch.tensor([len(own) for own in ids])
    return rows, torch.arange(longest)[None, :] < ends[:, None]


def batches(texts: Sequence[Sequence[int]], tokens: int = BATCH_TOKENS) -> Iterator[tuple[Tensor, Tensor]]:
    """Padded ids `[texts, time]` of texts of like length, and which positions hold tokens; so many tokens a batch."""
    rest = sorted(texts, key=len)
    while rest:
        count = max(1, tokens // len(rest[-1]))
        yield padded(rest[-count:])
        del rest[-count:]
