"""The forward and backward of training: a Llama's arithmetic, written to be fast on a CPU.

It runs the weights of `transformers.LlamaForCausalLM` by their names, with bf16 matrix products over fp32 master
weights, fused query-key-value and gate-up products, attention of its own, and a cross-entropy that never holds the
logits of a whole batch. The tests hold it to the library's own forward.
"""

import functools
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig

ChunkError = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Logits and targets of a chunk to its summed loss and the error of its logits."""

_CHUNK = 1024
"""Positions whose logits exist at once: 1,024 x 8,192 bf16 logits are 16 MB, which stay in cache."""
_BLOCKS = 2
"""Blocks of queries in attention."""


def rotary_tables(config: LlamaConfig, length: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary embedding, each `[length, head_dim]` (RoFormer, eq. 34; halves, not pairs)."""
    parameters = config.rope_parameters
    assert parameters is not None
    theta = float(parameters["rope_theta"])
    width = config.head_dim
    frequencies = theta ** -(torch.arange(0, width, 2, dtype=torch.float32) / width)
    angles = torch.outer(torch.arange(length, dtype=torch.float32), frequencies)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rms_norm(x: Tensor, gain: Tensor, epsilon: float) -> Tensor:
    """Root-mean-square normalisation in fp32, cast back to the dtype of `x` (`[..., width]`)."""
    wide = x.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    return (wide * scale * gain).to(x.dtype)


def _rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (x.float() * cosines + turned.float() * sines).to(x.dtype)


class TrainingForward(nn.Module):
    """Runs the weights of a Llama over packed rows and returns the mean next-token loss.

    It owns no parameters: each call takes the mapping of weight names to fp32 tensors, so that the library's model and
    this forward share one set of weights.
    """

    cosines: Tensor
    sines: Tensor

    def __init__(self, config: LlamaConfig, length: int, compute: torch.dtype = torch.bfloat16) -> None:
        super().__init__()
        self.config = config
        self.compute = compute
        cosines, sines = rotary_tables(config, length)
        self.register_buffer("cosines", cosines)
        self.register_buffer("sines", sines)

    def forward(self, weights: Mapping[str, Tensor], ids: Tensor) -> Tensor:
        """Final normalised hidden states `[rows, length, width]` of token ids `[rows, length]`."""
        x = functional.embedding(ids, weights["model.embed_tokens.weight"]).to(self.compute)
        for layer in range(self.config.num_hidden_layers):
            x = self._block(weights, f"model.layers.{layer}.", x)
        return rms_norm(x, weights["model.norm.weight"], self.config.rms_norm_eps)

    def _block(self, weights: Mapping[str, Tensor], prefix: str, x: Tensor) -> Tensor:
        epsilon = self.config.rms_norm_eps
        read = rms_norm(x, weights[prefix + "input_layernorm.weight"], epsilon)
        x = x + self._attention(weights, prefix + "self_attn.", read)
        read = rms_norm(x, weights[prefix + "post_attention_layernorm.weight"], epsilon)
        return x + self._feed_forward(weights, prefix + "mlp.", read)

    def _attention(self, weights: Mapping[str, Tensor], prefix: str, x: Tensor) -> Tensor:
        rows, length, _ = x.shape
        heads, shared, width = (
            self.config.num_attention_heads,
            self.config.num_key_value_heads,
            self.config.head_dim,
        )
        joined = torch.cat([weights[f"{prefix}{name}_proj.weight"] for name in "qkv"]).to(self.compute)
        sizes = [heads * width, shared * width, shared * width]
        q, k, v = torch.split(functional.linear(x, joined), sizes, dim=-1)
        q = _rotate(q.view(rows, length, heads, width).transpose(1, 2), self.cosines, self.sines)
        k = _rotate(k.view(rows, length, shared, width).transpose(1, 2), self.cosines, self.sines)
        v = v.view(rows, length, shared, width).transpose(1, 2)
        k, v = (t.repeat_interleave(heads // shared, dim=1) for t in (k, v))
        q, k, v = (t.reshape(rows * heads, length, width) for t in (q, k, v))
        read = causal_attention(q, k, v).view(rows, heads, length, width)
        read = read.transpose(1, 2).reshape(rows, length, heads * width)
        return functional.linear(read, weights[prefix + "o_proj.weight"].to(self.compute))

    def _feed_forward(self, weights: Mapping[str, Tensor], prefix: str, x: Tensor) -> Tensor:
        joined = torch.cat([weights[f"{prefix}{name}_proj.weight"] for name in ("gate", "up")]).to(
            self.compute
        )
        gate, up = functional.linear(x, joined).chunk(2, dim=-1)
        inner = functional.silu(gate) * up
        return functional.linear(inner, weights[prefix + "down_proj.weight"].to(self.compute))


def _edges(length: int) -> list[tuple[int, int]]:
    count = _BLOCKS if length % _BLOCKS == 0 else 1
    return list(pairwise(range(0, length + 1, length // count)))


def _mask(start: int, stop: int) -> Tensor:
    later = torch.arange(stop)[None, :] > torch.arange(start, stop)[:, None]
    return torch.where(later, float("-inf"), 0.0)


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of each position over itself and earlier ones, `[rows times heads, length, head_dim]` throughout.

    On a CPU and short rows, batched bf16 products over two blocks of queries, each reading only the keys up to its end,
    take two thirds of the time of the library's fused kernel, which spends most of it in its backward.
    """
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


def next_token_loss(hidden: Tensor, head: Tensor, targets: Tensor, compiled: bool) -> Tensor:
    """Mean cross-entropy in nats of hidden states `[rows, length, width]` against target ids `[rows, length]`."""
    error = _compiled_error() if compiled else softmax_error
    flat = hidden.reshape(-1, hidden.shape[-1])
    loss: Tensor = ChunkedCrossEntropy.apply(flat, head, targets.reshape(-1), error)  # type: ignore[no-untyped-call]
    return loss


class ChunkedCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of `hidden @ head.T` against targets, its gradients taken chunk by chunk in the forward."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, chunk_error: ChunkError) -> Tensor:
        """`hidden` `[n, width]`, `head` `[vocabulary, width]`, `targets` `[n]`; a scalar in nats."""
        narrow = head.to(hidden.dtype)
        loss = torch.zeros((), dtype=torch.float32)
        hidden_gradient = torch.empty_like(hidden)
        head_gradient = torch.zeros_like(head)
        for start in range(0, hidden.shape[0], _CHUNK):
            rows = slice(start, start + _CHUNK)
            total, error = chunk_error(hidden[rows] @ narrow.T, targets[rows])
            loss += total
            hidden_gradient[rows] = error @ narrow
            head_gradient += error.T @ hidden[rows]
        count = hidden.shape[0]
        ctx.save_for_backward(hidden_gradient.div_(count), head_gradient.div_(count))
        return loss / count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Scales the gradients that the forward left behind."""
        hidden_gradient, head_gradient = ctx.saved_tensors
        return gradient.to(hidden_gradient.dtype) * hidden_gradient, gradient * head_gradient, None, None


def softmax_error(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Summed loss of a chunk and its gradient with respect to the logits (softmax minus one at the target)."""
    wide = logits.float()
    top = wide.amax(-1, keepdim=True)
    powers = (wide - top).exp()
    mass = powers.sum(-1, keepdim=True)
    picked = wide.gather(-1, targets[:, None])
    loss = (top + mass.log() - picked).sum()
    hot = torch.arange(logits.shape[1])[None, :] == targets[:, None]
    return loss, (powers / mass - hot.float()).to(logits.dtype)


@functools.cache
def _compiled_error() -> ChunkError:
    """Compiled on first use only, since importing must do nothing."""
    return torch.compile(softmax_error, dynamic=True)
