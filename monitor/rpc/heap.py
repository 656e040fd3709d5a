"""Memory that passes have used goes back to the system, so that a server's size does not creep up.

Knows one setting of glibc's allocator. Does not know who allocates.
"""

from __future__ import annotations

import ctypes
import os

LARGE = 2**20
"""Bytes from which a block gets a mapping of its own, and leaves with it."""
_MMAP_THRESHOLD = -3
"""M_MMAP_THRESHOLD of `mallopt(3)`."""


def return_large_blocks() -> bool:
    """Have large blocks unmapped when they are freed; whether that was set. To be called before work begins.

    Left to itself glibc raises its threshold to the largest block that was ever freed (up to 32 MiB). From then on
    the tensors of a pass lie in heaps, between small things that live long, and what is free there stays resident:
    in soaks of an hour by steps of some tens of MB. Whoever chose an allocator's setting, or has another C library,
    keeps it.
    """
    if "MALLOC_MMAP_THRESHOLD_" in os.environ or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # musl, macOS, Windows
        return False
    return bool(mallopt(_MMAP_THRESHOLD, LARGE))
