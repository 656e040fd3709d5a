"""Settings of the memory allocators, so that memory that is no longer used goes back to the system.

Without them the resident memory of a server grows for hours.
"""

from __future__ import annotations

import ctypes
import os
import threading
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_ARENA_MAX of `mallopt(3)`."""
_LARGE, _TOP = 32 << 20, 128 << 20
"""Bytes from which a block gets a mapping of its own, and free bytes that are kept to avoid page faults."""
_EVERY = 60.0
"""Seconds between two trims; one takes some milliseconds."""


def limit_retained_memory(every: float = _EVERY) -> bool:
    """Make MKL and glibc return freed memory. Returns True where glibc was set up. Call it before torch is imported.

    MKL keeps the buffers of matrix products for each thread, and allocates more whenever a product has more rows than
    any before; MKL_DISABLE_FAST_MM makes it free them. glibc gives each thread an arena, which keeps the most that it
    ever held. Here all threads share one arena, whose free memory is returned every minute; Python's small objects are
    allocated elsewhere, so threads seldom wait for each other. Only very large blocks get mappings of their own,
    because those cost page faults in every pass. Settings of the operator in the environment, and other C libraries,
    are left alone.
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
    """Return free memory to the system every `every` seconds, for as long as the process runs."""
    never = threading.Event()
    while not never.wait(every):
        libc.malloc_trim(ctypes.c_size_t(0))
