"""Threads share an arena and what is free in it goes back, unless somebody chose otherwise."""

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")

BEGIN = """
import ctypes, sys, tempfile, threading, time
from monitor.rpc.process.allocator import limit_retained_memory

libc = ctypes.CDLL(None)
libc.fopen.restype = libc.malloc.restype = ctypes.c_void_p
libc.fopen.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = libc.fclose.argtypes = [ctypes.c_void_p]
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
told = limit_retained_memory(0.05) if sys.argv[1] == "set" else False
"""

ARENAS = (
    BEGIN
    + """
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
)

FREED = (
    BEGIN
    + """
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

blocks = [libc.malloc(60_000) for _ in range(2_000)]
for block in blocks:
    ctypes.memset(block, 1, 60_000)
full = resident()
for block in blocks[:-1]:
    libc.free(block)
until = time.monotonic() + float(sys.argv[2])
while resident() > full - 100 and time.monotonic() < until:
    time.sleep(0.02)
print(told, int(full - resident() > 100))
"""
)


def said(program: str, *asked: str, **told: str) -> tuple[bool, int]:
    """Whether the setting was made, and the number that the program prints."""
    chosen = ("MALLOC_", "GLIBC_TUNABLES", "MKL_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(chosen)}
    ended = subprocess.run(
        [sys.executable, "-c", program, *asked],
        capture_output=True,
        text=True,
        env=environment | told,
        check=True,
        timeout=120,
    )
    made, number = ended.stdout.split()
    return made == "True", int(number)


def test_many_threads_share_an_arena():
    assert said(ARENAS, "left alone")[1] > 2
    assert said(ARENAS, "set") == (True, 1)


@pytest.mark.slow
def test_what_is_free_below_something_that_is_not_goes_back():
    assert said(FREED, "left alone", "1") == (False, 0)
    assert said(FREED, "set", "60") == (True, 1)


@pytest.mark.parametrize("told", [{"MALLOC_ARENA_MAX": "3"}, {"GLIBC_TUNABLES": "glibc.malloc.arena_max=3"}])
def test_who_has_chosen_a_setting_keeps_it(told):
    assert said(ARENAS, "set", **told) == (False, 3)


def test_mkl_frees_its_buffers_unless_told_otherwise():
    program = BEGIN + "\nimport os\nprint(told, os.environ['MKL_DISABLE_FAST_MM'])"
    assert said(program, "set") == (True, 1)
    assert said(program, "set", MKL_DISABLE_FAST_MM="0") == (True, 0)


SERVED = """
import sys
from unittest import mock
from monitor.cli.app import app
from monitor.rpc.process import allocator

def told():
    print("torch" in sys.modules, 1)
    raise SystemExit(0)

sys.argv = ["sae-monitor", "serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]
with mock.patch.object(allocator, "limit_retained_memory", told):
    app()
"""


@pytest.mark.slow
def test_serve_does_it_before_torch_is_imported():
    assert said(SERVED, SAE_MONITOR_DECISION_LOG="off") == (False, 1)
