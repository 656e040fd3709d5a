"""Memory that is no longer used goes back to the system, so that a server's size does not creep up.

Knows glibc's allocator and MKL's. Does not know who allocates.
"""

from __future__ import annotations

import ctypes
import os
import threading
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_ARENA_MAX of `mallopt(3)`."""
_LARGE, _TOP = 32 << 20, 128 << 20
"""Bytes from which a block has a mapping of its own, and bytes that passes may take and free without page faults."""
_EVERY = 60.0
"""Seconds between two times; one takes some milliseconds."""


def limit_retained_memory(every: float = _EVERY) -> bool:
    """Keep a server's memory level; whether glibc was told. To be called before torch is imported.

    Two allocators would let it rise for hours. MKL keeps the buffers of a matrix product for each thread of each team,
    and takes more whenever one has more rows than any before; MKL_DISABLE_FAST_MM has it free them. glibc gives each
    thread an arena, which keeps the most that it ever held; here all threads share one, and what is free in it goes
    back each minute. Blocks stay in it up to a size, because mappings of their own cost page faults at every pass.
    Python's small objects don't come from there, so threads hardly meet. Whoever chose a setting, or has another C
    library, keeps it.
    """
    os.environ.setdefault("MKL_DISABLE_FAST_MM", "1")
    if any(name.startswith("MALLOC_") for name in os.environ) or "glibc.malloc" in os.environ.get(
        "GLIBC_TUNABLES", ""
    ):
        return False
    try:
        libc = ctypes.CDLL(None)
        libc.malloc_trim  # noqa: B018  (musl has neither)
        told = ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, _LARGE), (_TRIM_THRESHOLD, _TOP))
        if not all(libc.mallopt(name, value) for name, value in told):
            return False
    except (OSError, AttributeError, TypeError):  # musl, macOS, Windows
        return False
    threading.Thread(target=_trim, args=(libc, every), name="heap", daemon=True).start()
    return True


def _trim(libc: Any, every: float) -> None:
    """Once in a while, for as long as the process runs. Other threads go on meanwhile."""
    never = threading.Event()
    while not never.wait(every):
        libc.malloc_trim(ctypes.c_size_t(0))
