"""Memory that is no longer used goes back to the system, so that a server's size does not creep up.

Knows glibc's allocator. Does not know who allocates.
"""

from __future__ import annotations

import ctypes
import os
import threading
from typing import Any

_ARENA_MAX = -8
"""M_ARENA_MAX of `mallopt(3)`."""
_EVERY = 60.0
"""Seconds between two times; one takes some milliseconds."""


def keep_level(every: float = _EVERY) -> bool:
    """Have all threads share one arena, and give back what is free in it each minute; whether that was set.

    To be called before threads begin. Left to itself glibc gives up to eight arenas per core, one to each thread, and
    each keeps the most that it ever held: what is free between two blocks, and up to 64 MiB at its top once a large
    tensor has been freed. So memory rises for hours, by a step whenever another thread has its largest request.
    A fixed threshold for blocks with mappings of their own would do too, and costs page faults at every pass. Tensors
    are few, and Python's small objects don't come from there, so threads hardly meet. Whoever chose a setting, or has
    another C library, keeps it.
    """
    if "MALLOC_ARENA_MAX" in os.environ or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        libc = ctypes.CDLL(None)
        if not (libc.malloc_trim and libc.mallopt(_ARENA_MAX, 1)):
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
