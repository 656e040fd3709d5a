"""Large blocks that are freed leave the process, also after a larger one has been freed before."""

import os
import platform
import subprocess
import sys

import pytest

GLIBC = platform.libc_ver()[0] == "glibc"

MAPPED = """
import ctypes, sys
from monitor.rpc.heap import return_large_blocks

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

class Info(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_int) for name in names.split()]

libc.mallinfo.restype = Info
told = return_large_blocks() if sys.argv[1] == "set" else False
libc.free(libc.malloc(16 << 20))
before = libc.mallinfo().hblks
block = libc.malloc(4 << 20)
print(told, libc.mallinfo().hblks - before)
"""


def mapped(asked: str, **told: str) -> list[str]:
    """Whether the setting was made, and how many mappings a block of 4 MiB got after one of 16 had been freed."""
    environment = {
        k: v for k, v in os.environ.items() if k not in ("MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
    }
    command = [sys.executable, "-c", MAPPED, asked]
    ended = subprocess.run(
        command, capture_output=True, text=True, env=environment | told, check=True, timeout=60
    )
    return ended.stdout.split()


@pytest.mark.skipif(not GLIBC, reason="the setting is glibc's")
def test_a_large_block_has_a_mapping_of_its_own_that_leaves_with_it():
    assert mapped("left alone") == ["False", "0"]
    assert mapped("set") == ["True", "1"]


@pytest.mark.parametrize(
    "told",
    [{"MALLOC_MMAP_THRESHOLD_": "33554432"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=33554432"}],
)
@pytest.mark.skipif(not GLIBC, reason="the setting is glibc's")
def test_who_has_chosen_a_setting_keeps_it(told):
    assert mapped("set", **told) == ["False", "0"]
