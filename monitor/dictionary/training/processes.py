"""Sums, means and maxima over the processes of a data-parallel run, by `torch.distributed`.

In a run of a single process, they return the value as it is.
"""

from __future__ import annotations

import importlib

import torch
from torch import Tensor
from torch import distributed as dist


def join(backend: str, **how: object) -> None:
    """Join the other processes; `how` are arguments of `init_process_group`."""
    # PyTorch imports this module at the first step of an optimiser. If a process group exists by then, its functions
    # keep the group as a default argument, and `leave` cannot end the group's threads. A thread that frees a tensor
    # during interpreter shutdown then aborts a process that had finished.
    importlib.import_module("torch.distributed.nn.functional")
    dist.init_process_group(backend, **how)  # type: ignore[arg-type]


def leave(*, together: bool) -> None:
    """Undo `join`.

    With `together`, wait until every process has called this. Pass False after an error, since a process that has
    failed never calls it, and the others would wait for ever.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return
    if together:
        on = f"cuda:{dist.get_node_local_rank(0)}" if dist.get_backend() == "nccl" else "cpu"
        int(total(torch.zeros(1, device=on)))
    dist.destroy_process_group()


def size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Index of this process; 0 is the first."""
    return dist.get_rank() if size() > 1 else 0


def total(value: Tensor) -> Tensor:
    """Sum over processes."""
    if size() == 1:
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value


def mean(value: Tensor) -> Tensor:
    """Mean over processes."""
    return total(value) / size()


def largest(value: Tensor) -> Tensor:
    """Maximum over processes, element by element."""
    if size() == 1:
        return value
    value = value.clone()
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return value


def broadcast(value: Tensor) -> Tensor:
    """The value that the first process passed."""
    if size() > 1:
        value = value.clone()
        dist.broadcast(value, src=0)
    return value


def average(tensors: list[Tensor]) -> None:
    """Replace each tensor by its mean over processes, in place and with one message for all."""
    if size() == 1:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    flat /= size()
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def kth_largest(values: Tensor, k: int) -> Tensor:
    """The k-th largest of the positive values (float32 or float64) of all processes; 0 where there are fewer than k.

    The result is exact. Positive floats are ordered like the integers of their bits, so a binary search over the bits
    finds it; for each bit, one count is summed over the processes.
    """
    if size() == 1:
        if values.numel() < k:
            return values.new_zeros(())
        return values.kthvalue(values.numel() - k + 1).values
    whole, width = (torch.int64, 63) if values.dtype is torch.float64 else (torch.int32, 31)
    bits = values.view(whole)
    low = 0
    for bit in reversed(range(width)):
        middle = low | (1 << bit)
        if int(total((bits >= middle).sum())) >= k:
            low = middle
    return torch.tensor(low, dtype=whole, device=values.device).view(values.dtype)
