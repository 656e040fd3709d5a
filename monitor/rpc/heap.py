"""Memory that was used once is used again, so that a server's size does not creep up.

Knows one setting of glibc's allocator. Does not know who allocates.
"""

from __future__ import annotations

import ctypes
import os

ARENAS = 2
_ARENA_MAX = -8
"""M_ARENA_MAX of `mallopt(3)`."""


def share_arenas() -> bool:
    """Have all threads allocate from two arenas; whether that was set. To be called before threads begin.

    Left to itself glibc gives up to eight arenas per core, one to each thread, and each keeps the most that it ever
    held: up to 64 MiB are not given back from its top, once a large tensor has been freed. So memory rises for hours,
    by a step whenever another thread has its largest request. Tensors are few and large, and Python's own objects
    don't come from there, so threads hardly meet. Whoever chose a setting, or has another C library, keeps it.
    """
    if "MALLOC_ARENA_MAX" in os.environ or "glibc.malloc.arena_max" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # musl, macOS, Windows
        return False
    return bool(mallopt(_ARENA_MAX, ARENAS))
