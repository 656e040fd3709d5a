"""Compare this process's memory with its limit, so that calls are refused before the kernel ends the process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil

_EVERY = 0.2
"""Seconds for which a measurement is reused; one takes some 50 microseconds."""
_OWN_GROUPS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")
_MACHINE_FLOOR = 0.02
"""Share of the machine's memory that must be free, whichever process uses the rest."""


def memory_limit(setting: int | None) -> int:
    """Bytes that this process may use: the setting, else the limit of its control group, else the machine's memory."""
    machine = int(psutil.virtual_memory().total)
    if setting is not None:
        return min(setting, machine)
    return min((limit for file in _limit_files() if 0 < (limit := _limit(file)) < machine), default=machine)


def _limit_files() -> Iterator[Path]:
    """Files with the memory limits of this process's control groups (versions 2 and 1) and of all their parents.

    Inside a container the process is in the root group. Under systemd it is in the group of a service.
    """
    try:
        lines = _OWN_GROUPS.read_text().splitlines()
    except OSError:
        lines = []
    places = {"": (_GROUPS, "memory.max"), "memory": (_GROUPS / "memory", "memory.limit_in_bytes")}
    for kind, (root, name) in places.items():
        yield root / name
        for line in lines:
            _, kinds, path = line.split(":", 2)
            inside = PurePosixPath(path.lstrip("/"))
            if kind in kinds.split(",") and ".." not in inside.parts:
                yield from (root / group / name for group in (inside, *inside.parents))


def _limit(file: Path) -> int:
    """The limit in a file in bytes; 0 where there is none."""
    try:
        text = file.read_text("ascii").strip()
    except OSError:
        return 0
    return int(text) if text.isdigit() else 0


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
