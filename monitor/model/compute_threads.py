"""`release`: ends the threads that compute for the thread that calls it, until it computes again.

torch's products run on OpenMP. libgomp, its OpenMP on Linux, keeps a pool of threads for every thread that ever
computed, and counts the threads of all pools. Where there are more than processors, its threads wait for each other by
sleeping instead of spinning, and are woken up for each of the some hundred products of a pass. One pool that nobody
uses any more, such as that of the thread that loaded the model, is enough on a machine with few processors.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
_HARD = 2
"""`omp_pause_hard` of OpenMP 5.0."""


def release() -> int:
    """End the pools of the calling thread, outside of any product. Gives how many libraries did; 0 without libgomp.

    To be called first once torch was imported, which brings the library.
    """
    return sum(library.omp_pause_resource_all(_HARD) == 0 for library in _libraries())


def released(work: Callable[[], T]) -> T:
    """Do something, and end the pools that it has left to the calling thread."""
    try:
        return work()
    finally:
        release()


@cache
def _libraries() -> Sequence[ctypes.CDLL]:
    """The copies of libgomp that this process has loaded: wheels bring their own."""
    try:
        mapped = Path("/proc/self/maps").read_text()
    except OSError:  # not Linux
        return ()
    paths = sorted(set(re.findall(r"(/\S*libgomp[^/\s]*\.so\S*)$", mapped, re.MULTILINE)))
    return [found for found in map(ctypes.CDLL, paths) if hasattr(found, "omp_pause_resource_all")]
