"""Gradients of a batch: by this process alone, or by worker processes of one thread each.

Threads that meet at a barrier after every small product crawl as soon as anything else wants their cores. Processes
that meet once a step only slow down by what they are denied, and the free ones take over the pieces that the others
have not begun.
"""

import ctypes
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, Protocol

import torch
from torch import Tensor, multiprocessing
from transformers import LlamaConfig

from monitor.recipes.tiny.network import TrainingForward, next_token_loss
from monitor.recipes.tiny.plan import PretrainingPlan

_HEAD = "model.embed_tokens.weight"
_ROUNDS = 2
"""Pieces per worker: more share the work out better, fewer run faster."""
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
"""Settings of glibc's allocator."""


class Gradients(Protocol):
    """Leaves the gradient of a batch's mean loss in the weights' `grad`."""

    def __call__(self, batch: Tensor) -> float:
        """Takes token ids `[rows, context + 1]` and returns the mean loss in nats."""


class LocalGradients:
    """Computes the pieces of a batch one after the other; the same bits every time."""

    def __init__(self, plan: PretrainingPlan, config: LlamaConfig, weights: Mapping[str, Tensor]) -> None:
        forward = TrainingForward(config, plan.shape.context)
        self._forward: Callable[..., Tensor] = torch.compile(forward) if plan.compiled else forward
        self._plan = plan
        self._weights = weights

    def __call__(self, batch: Tensor) -> float:
        """See `Gradients`; adds to gradients that are already there."""
        return sum(
            (self.add(piece, len(piece) / len(batch)) for piece in _split(batch, self._plan.piece)), 0.0
        )

    def add(self, piece: Tensor, share: float) -> float:
        """Adds the gradient of a piece's mean loss times `share`; returns that product."""
        hidden = self._forward(self._weights, piece[:, :-1])
        loss = next_token_loss(hidden, self._weights[_HEAD], piece[:, 1:], self._plan.compiled) * share
        torch.autograd.backward(loss)
        return float(loss.detach())


class WorkerGradients:
    """Hands the pieces of a batch to worker processes that share the weights' memory.

    The order in which gradients are added depends on who is free, so the last bits differ from run to run.
    """

    def __init__(
        self, plan: PretrainingPlan, config: LlamaConfig, weights: Mapping[str, Tensor], workers: int
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._weights = weights
        shared = {name: _shared(weight.detach()) for name, weight in weights.items()}
        size = sum(weight.numel() for weight in weights.values())
        self._batch = _shared(torch.zeros(plan.rows, plan.shape.context + 1, dtype=torch.int64))
        pieces = _split(self._batch, max(1, plan.rows // (_ROUNDS * workers)))
        self._begun = context.Value("i", 0)
        self._sums = [_shared(torch.zeros(size)) for _ in range(workers)]
        self._lines: list[Connection[Any, Any]] = []
        for flat in self._sums:
            ours, theirs = context.Pipe()
            arguments = (theirs, plan, config, shared, flat, pieces, self._begun)
            context.Process(target=_work, args=arguments, daemon=True).start()
            theirs.close()
            self._lines.append(ours)

    def __call__(self, batch: Tensor) -> float:
        """See `Gradients`.

        Raises:
            EOFError: A worker has died; its own error is on the terminal.
        """
        self._batch.copy_(batch)
        self._begun.value = 0
        for line in self._lines:
            line.send(True)
        loss = sum(line.recv() for line in self._lines)
        total = torch.stack(self._sums).sum(0)
        for weight, gradient in _views(self._weights, total):
            weight.grad = gradient
        for flat in self._sums:
            flat.zero_()
        return float(loss)


def _shared(tensor: Tensor) -> Tensor:
    """The tensor, its storage moved to where other processes see it."""
    moved: Tensor = tensor.share_memory_()  # type: ignore[no-untyped-call]
    return moved


def _split(batch: Tensor, rows: int) -> tuple[Tensor, ...]:
    return torch.split(batch, rows)


def _views(weights: Mapping[str, Tensor], flat: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Each weight with its part of a flat vector, in the weight's shape."""
    parts = torch.split(flat, [weight.numel() for weight in weights.values()])
    return [(w, part.view(w.shape)) for w, part in zip(weights.values(), parts, strict=True)]


def _work(
    line: "Connection[Any, Any]",
    plan: PretrainingPlan,
    config: LlamaConfig,
    shared: dict[str, Tensor],
    flat: Tensor,
    pieces: Sequence[Tensor],
    begun: Any,
) -> None:
    """A worker's life: on each call take pieces while there are any, then tell the loss; end with the parent."""
    torch.set_num_threads(1)
    keep_freed_memory()
    weights = {name: weight.requires_grad_() for name, weight in shared.items()}
    for weight, gradient in _views(weights, flat):
        weight.grad = gradient
    local = LocalGradients(plan, config, weights)
    while _called(line):
        loss = 0.0
        while (number := _take(begun)) < len(pieces):
            loss += local.add(pieces[number], len(pieces[number]) / plan.rows)
        line.send(loss)


def _called(line: "Connection[Any, Any]") -> bool:
    try:
        return bool(line.recv())
    except EOFError:
        return False


def _take(begun: Any) -> int:
    with begun.get_lock():
        number = int(begun.value)
        begun.value = number + 1
    return number


def keep_freed_memory() -> None:
    """Keeps freed memory in the process, so that a training step does not pay for its pages anew.

    It tells glibc never to map single blocks and never to give memory back, which is worth 15 % of the training speed
    on a CPU. On systems without glibc it does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_TOP_PAD, 2**28)
