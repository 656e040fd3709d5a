"""Copies between the host and a device that the host does not wait for.

On a GPU they take their place in the device's current stream, and their memory on the host is pinned. Elsewhere they
are done at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def to_device(values: Sequence[float], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor `[values]` on a device. What is queued on the device after it finds it there."""
    made = torch.tensor(values, dtype=dtype)
    return made.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else made.to(device)


class HostCopies:
    """Tensors of one device on their way to the host: as they stand when they are added, whatever is written later."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._arrived: torch.cuda.Event | None = None

    def add(self, values: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """The copy, which must not be read before `wait`."""
        values = values if dtype is None else values.to(dtype)
        if values.device.type != "cuda":
            return values.to("cpu", copy=True)
        place = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        place.copy_(values, non_blocking=True)
        return place

    def sent(self) -> None:
        """Say that all were added."""
        if self._device.type == "cuda":
            self._arrived = torch.cuda.current_stream(self._device).record_event()

    def wait(self) -> None:
        """Wait until all are there."""
        if self._arrived is not None:
            self._arrived.synchronize()
