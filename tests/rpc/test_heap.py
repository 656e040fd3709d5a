"""Threads share few arenas, unless somebody chose otherwise."""

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")

COUNTED = """
import ctypes, sys, tempfile, threading
from monitor.rpc.heap import share_arenas

libc = ctypes.CDLL(None)
libc.fopen.restype = libc.malloc.restype = ctypes.c_void_p
libc.fopen.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
libc.malloc.argtypes = [ctypes.c_size_t]
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
libc.fclose.argtypes = [ctypes.c_void_p]

told = share_arenas() if sys.argv[1] == "set" else False
together = threading.Barrier(6)

def allocate():
    libc.malloc(100_000)
    together.wait(30)

threads = [threading.Thread(target=allocate) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
with tempfile.NamedTemporaryFile() as file:
    stream = libc.fopen(file.name.encode(), b"w")
    libc.malloc_info(0, stream)
    libc.fclose(stream)
    print(told, file.read().count(b"<heap nr="))
"""


def counted(asked: str, **told: str) -> tuple[bool, int]:
    """Whether the setting was made, and how many arenas six threads at once have beside the first thread's."""
    environment = {k: v for k, v in os.environ.items() if k not in ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES")}
    command = [sys.executable, "-c", COUNTED, asked]
    ended = subprocess.run(
        command, capture_output=True, text=True, env=environment | told, check=True, timeout=60
    )
    made, arenas = ended.stdout.split()
    return made == "True", int(arenas)


def test_many_threads_share_two_arenas():
    assert counted("left alone")[1] > 2
    assert counted("set") == (True, 2)


@pytest.mark.parametrize("told", [{"MALLOC_ARENA_MAX": "3"}, {"GLIBC_TUNABLES": "glibc.malloc.arena_max=3"}])
def test_who_has_chosen_a_setting_keeps_it(told):
    assert counted("set", **told) == (False, 3)
