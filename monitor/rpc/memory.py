"""How much memory is left, so that calls are refused before the kernel ends the process.

Knows this process, its control group and the machine. Does not know calls.
"""

from __future__ import annotations

import time
from pathlib import Path

import psutil

_EVERY = 0.2
"""Seconds for which a reading stands; a reading takes some 50 microseconds."""
_GROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where control groups of version 2 and 1 write the limit, seen from inside of a container."""
_MACHINE_FLOOR = 0.02
"""Share of the machine's memory that must be free, whoever uses the rest."""


def memory_limit(setting: int | None) -> int:
    """Bytes that this process may use: the setting, the limit of its control group, or all of the machine."""
    machine = int(psutil.virtual_memory().total)
    if setting is not None:
        return min(setting, machine)
    for name in _GROUP_LIMITS:
        try:
            text = Path(name).read_text("ascii").strip()
        except OSError:
            continue
        if text.isdigit() and 0 < int(text) < machine:
            return int(text)
    return machine


class Memory:
    """Resident memory against a watermark. May be asked from any thread, as often as there are calls."""

    def __init__(self, limit: int | None, watermark: float) -> None:
        self._limit, self._watermark = memory_limit(limit), watermark
        self._process = psutil.Process()
        self._read_at = float("-inf")
        self._low = False

    def used_ratio(self) -> float:
        """Resident memory of this process as a share of what it may use."""
        return float(self._process.memory_info().rss) / self._limit

    def low(self) -> bool:
        """True where no call should begin."""
        now = time.monotonic()
        if now - self._read_at >= _EVERY:
            self._read_at = now
            self._low = self.used_ratio() >= self._watermark or self._machine_is_full()
        return self._low

    def _machine_is_full(self) -> bool:
        memory = psutil.virtual_memory()
        return bool(memory.available < _MACHINE_FLOOR * memory.total)
