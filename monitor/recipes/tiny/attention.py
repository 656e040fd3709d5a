"""Causal attention as a few large products, with its own backward.

Knows one fact about CPUs: on short rows, batched bf16 products over two blocks of queries (each reading only the keys
up to its end) take two thirds of the time of the library's fused kernel, most of which goes into its backward. Knows
nothing of models. `tests/demo` compares it with the library's attention.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

_BLOCKS = 2


def _edges(length: int) -> list[tuple[int, int]]:
    count = _BLOCKS if length % _BLOCKS == 0 else 1
    return list(pairwise(range(0, length + 1, length // count)))


def _mask(start: int, stop: int) -> Tensor:
    later = torch.arange(stop)[None, :] > torch.arange(start, stop)[:, None]
    return torch.where(later, float("-inf"), 0.0)


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of each position over itself and earlier ones, `[rows times heads, length, head_dim]` throughout."""
    read: Tensor = CausalAttention.apply(q, k, v)  # type: ignore[no-untyped-call]
    return read


class CausalAttention(torch.autograd.Function):
    """The product form of softmax attention, and its gradients."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Scores are scaled by `head_dim ** -0.5` and normalised in fp32."""
        scale = q.shape[-1] ** -0.5
        reads, kept = [], []
        for start, stop in _edges(q.shape[1]):
            scores = torch.bmm(q[:, start:stop], k[:, :stop].transpose(1, 2)).float() * scale
            kept.append(torch.softmax(scores + _mask(start, stop), dim=-1).to(q.dtype))
            reads.append(torch.bmm(kept[-1], v[:, :stop]))
        ctx.save_for_backward(q, k, v, *kept)
        return torch.cat(reads, dim=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of the three inputs, from the kept probabilities."""
        q, k, v, *kept = ctx.saved_tensors
        scale = q.shape[-1] ** -0.5
        q_parts, k_gradient, v_gradient = [], torch.zeros_like(k), torch.zeros_like(v)
        for (start, stop), chance in zip(_edges(q.shape[1]), kept, strict=True):
            above = gradient[:, start:stop].contiguous()
            lift = torch.bmm(above, v[:, :stop].transpose(1, 2)).float()
            wide = chance.float()
            error = (wide * (lift - (wide * lift).sum(-1, keepdim=True)) * scale).to(q.dtype)
            q_parts.append(torch.bmm(error, k[:, :stop]))
            rest = (0, 0, 0, k.shape[1] - stop)
            k_gradient = k_gradient + torch.nn.functional.pad(
                torch.bmm(error.transpose(1, 2), q[:, start:stop]), rest
            )
            v_gradient = v_gradient + torch.nn.functional.pad(torch.bmm(chance.transpose(1, 2), above), rest)
        return torch.cat(q_parts, dim=1), k_gradient, v_gradient
