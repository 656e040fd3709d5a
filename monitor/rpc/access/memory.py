"""Compare this process's memory with its limit, so that calls are refused before the kernel ends the process."""

from __future__ import annotations

import time

import psutil

from monitor.model.load.host import memory_limit

_EVERY = 0.2
"""Seconds for which a measurement is reused; one takes some 50 microseconds."""
_MACHINE_FLOOR = 0.02
"""Share of the machine's memory that must be free, whichever process uses the rest."""


class Memory:
    """Compares the resident memory of this process with a watermark, a share of its limit. Any thread."""

    def __init__(self, limit: int | None, watermark: float) -> None:
        self._limit, self._watermark = memory_limit(limit), watermark
        self._process = psutil.Process()
        self._read_at = float("-inf")
        self._low = False

    def used_ratio(self) -> float:
        """Resident memory of this process as a share of what it may use."""
        return float(self._process.memory_info().rss) / self._limit

    def low(self) -> bool:
        """True where no further call should begin."""
        now = time.monotonic()
        if now - self._read_at >= _EVERY:
            self._read_at = now
            self._low = self.used_ratio() >= self._watermark or self._machine_is_full()
        return self._low

    def _machine_is_full(self) -> bool:
        memory = psutil.virtual_memory()
        return bool(memory.available < _MACHINE_FLOOR * memory.total)
