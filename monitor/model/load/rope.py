"""Rotary embeddings whose frequencies depend on how long a sequence is, such as those of Phi-3.5 (longrope).

Transformers chooses the frequencies of a whole pass by its last position. So a short text beside a long one is read
with those of the long one, and each chunk of a long text with those of the chunk's own end. Here every row of a pass
gets the frequencies of its own sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from monitor.errors import ModelError

_known: WeakKeyDictionary[nn.Module, LengthRope] = WeakKeyDictionary()


class LengthRope:
    """The rotary embeddings of one model that depend on the length of a sequence; most models have none."""

    def __init__(self, model: nn.Module) -> None:
        found = [module for module in model.modules() if any(map(_depends, _kinds(module).values()))]
        self._limits = sorted({limit for module in found for limit in _limits(module)})
        self._dynamic = any("dynamic" in kind for module in found for kind in _kinds(module).values())
        self._lengths: list[int] | None = None
        for module in found:
            module.forward = self._by_row(module.forward)

    @staticmethod
    def of(model: nn.Module) -> LengthRope:
        """Those of a model, which are prepared when they are first asked for."""
        if model not in _known:
            _known[model] = LengthRope(model)
        return _known[model]

    def changes_within(self, context: int) -> bool:
        """True where two sequences of up to `context` tokens may have different frequencies."""
        return any(limit < context for limit in self._limits)

    def regime(self, length: int) -> tuple[int, int]:
        """Which frequencies a sequence of `length` tokens has: the shortest and the longest length that has them.

        Where a sequence grows from one regime into another, what was cached of it is of no use.
        """
        if self._dynamic and any(limit < length for limit in self._limits):
            return length, length
        low = max((limit + 1 for limit in self._limits if limit < length), default=1)
        return low, min((limit for limit in self._limits if limit >= length), default=1 << 30)

    @contextmanager
    def lengths(self, lengths: Sequence[int]) -> Iterator[None]:
        """Passes inside have a row for each of these sequences, which are so many tokens long.

        A pass may run a part of each, and padding behind it. Passes outside are those of transformers. The caller holds
        the lock of the model's passes.
        """
        self._lengths = list(lengths) if self._limits else None
        try:
            yield
        finally:
            self._lengths = None

    def _by_row(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        """A rotary embedding's forward pass that gives each row the frequencies of its own length."""

        def forward(x: Tensor, position_ids: Tensor, *args: Any, **named: Any) -> Any:
            if self._lengths is None:
                return plain(x, position_ids, *args, **named)
            if position_ids.dim() != 2 or position_ids.shape[0] not in (1, len(self._lengths)):
                raise ModelError(
                    f"positions of shape {tuple(position_ids.shape)} for {len(self._lengths)} sequences, and the "
                    "rotary embedding depends on the length of each; this model cannot be monitored"
                )
            positions = position_ids.expand(len(self._lengths), -1)
            regimes = [self.regime(length) for length in self._lengths]
            out: list[Tensor] = []
            for regime in sorted(set(regimes)):
                found = _in_regime(plain, regime, x, positions, *args, **named)
                mine = torch.tensor([own == regime for own in regimes], device=x.device)[:, None, None]
                out = [torch.where(mine, new, old) for new, old in zip(found, out or found, strict=True)]
            return tuple(out) if len(out) > 1 else out[0]

        return forward


def _in_regime(
    plain: Callable[..., Any], regime: tuple[int, int], x: Tensor, positions: Tensor, *args: Any, **named: Any
) -> tuple[Tensor, ...]:
    """What a rotary embedding gives for positions `[rows, time]`: tensors `[rows, time, width]`.

    Transformers goes by the last position and remembers long sequences until it sees a short one. So a position of the
    regime is put behind the others, padding is brought below its end, and a pass over position 0 forgets.
    """
    low, high = regime
    first = torch.zeros_like(positions[:, :1])
    plain(x, first, *args, **named)
    within = torch.cat([positions.clamp_max(high - 1), first + (low - 1)], dim=1)
    found = plain(x, within, *args, **named)
    plain(x, first, *args, **named)
    return tuple(part[:, :-1] for part in ((found,) if isinstance(found, Tensor) else found))


def _kinds(module: nn.Module) -> dict[str, str]:
    """The kinds of frequencies that a rotary embedding has, by type of layer (empty where all layers share one)."""
    kind = getattr(module, "rope_type", None)
    if isinstance(kind, str):
        return {"": kind}
    return (
        {layer: own for layer, own in kind.items() if isinstance(own, str)} if isinstance(kind, dict) else {}
    )


def _depends(kind: str) -> bool:
    return kind == "longrope" or "dynamic" in kind


def _limits(module: Any) -> list[int]:
    """The lengths beyond which the frequencies change."""
    found = []
    for layer, kind in _kinds(module).items():
        if kind == "longrope":
            parameters = module.config.rope_parameters
            found.append(
                int((parameters[layer] if layer else parameters)["original_max_position_embeddings"])
            )
        elif "dynamic" in kind:
            found.append(int(module.original_max_seq_len))
    return found
