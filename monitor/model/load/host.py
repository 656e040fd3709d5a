"""The host as this process may use it: its memory and its processors, with the limits of control groups.

A container sees the memory and the processors of the whole machine. What it may use of them stands in the files of its
control group.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil

_OWN_GROUPS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")
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


def memory_limit(setting: int | None) -> int:
    """Bytes that this process may use: the setting, else the limit of its control group, else the machine's memory."""
    machine = int(psutil.virtual_memory().total)
    if setting is not None:
        return min(setting, machine)
    files = _group_files("memory", "memory.max", "memory.limit_in_bytes")
    return min((limit for file in files if 0 < (limit := _number(_text(file))) < machine), default=machine)


def free_memory(setting: int | None = None) -> int:
    """Bytes that this process may still take: what its limit leaves, and no more than the machine has to spare."""
    left = memory_limit(setting) - int(psutil.Process().memory_info().rss)
    return max(0, min(left, int(psutil.virtual_memory().available)))


def processors() -> int:
    """Number of processors that this process may keep busy: those it may run on, and no more than its quota pays."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([allowed, *(max(1, math.ceil(quota)) for quota in _quotas())])


def bound_threads() -> None:
    """Let torch compute on as many threads as there are processors to use.

    Threads beyond a quota of the control group make the kernel stop all of them for the rest of each period. A number
    that the environment gives in OMP_NUM_THREADS stays.
    """
    import torch

    if not os.environ.get("OMP_NUM_THREADS") and processors() < torch.get_num_threads():
        torch.set_num_threads(processors())


def computes_bfloat16() -> bool:
    """Whether the processor has instructions for products of bfloat16, such as those of AMX and AVX-512."""
    import torch

    return any(on for name, on in torch.cpu.get_capabilities().items() if name.endswith("bf16"))


def _quotas() -> Iterator[float]:
    """Processors that each of the control groups of this process may use on average."""
    for file in _group_files("cpu", "cpu.max", "cpu.cfs_quota_us"):
        quota, _, period = _text(file).partition(" ")  # version 2 has both in one file
        period = period or _text(file.with_name("cpu.cfs_period_us"))
        if _number(quota) > 0 and _number(period) > 0:
            yield _number(quota) / _number(period)


def _group_files(kind: str, unified: str, legacy: str) -> Iterator[Path]:
    """Files of this process's control groups and of all their parents: `unified` in version 2, `legacy` in version 1.

    Inside a container the process is in the root group. Under systemd it is in the group of a service.
    """
    lines = _text(_OWN_GROUPS).splitlines()
    places = {"": (_GROUPS, unified), kind: (_GROUPS / kind, legacy)}
    for wanted, (root, name) in places.items():
        yield root / name
        for line in lines:
            _, kinds, path = line.split(":", 2)
            inside = PurePosixPath(path.lstrip("/"))
            if wanted in kinds.split(",") and ".." not in inside.parts:
                yield from (root / group / name for group in (inside, *inside.parents))


def _text(file: Path) -> str:
    """What a file holds; nothing where it cannot be read."""
    try:
        return file.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _number(text: str) -> int:
    """The number that a text is; 0 for `max`, `-1` and everything else."""
    return int(text) if text.isdigit() else 0
