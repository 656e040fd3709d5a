"""Processes of a test on free ports of this machine, ended by whoever started them."""

from __future__ import annotations

import json
import random
import secrets
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_port() -> int:
    """A port that nobody listens on now, and that the kernel gives to no outgoing connection meanwhile."""
    chance = random.Random(secrets.randbits(64))
    for port in chance.sample(range(10_000, 32_000), 200):
        with socket.socket() as taken:
            try:
                taken.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("200 ports were tried, and none is free")


def fetch(url: str) -> bytes:
    """The body at a URL; OSError where there is none."""
    with _OPENER.open(url, timeout=10) as answer:
        body: bytes = answer.read()
    return body


def fetch_json(url: str) -> Any:
    """The JSON at a URL."""
    return json.loads(fetch(url))


def wait_for(what: str, holds: Callable[[], Any], seconds: float = 120.0) -> Any:
    """The first true answer of `holds`; fails with `what` after so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if found := holds():
                return found
        except (OSError, urllib.error.URLError):
            pass
        time.sleep(0.1)
    raise AssertionError(f"after {seconds:.0f} seconds still not: {what}")


@contextmanager
def process(command: Sequence[object], log: Path, cwd: Path, ready: str) -> Iterator[None]:
    """A process that answers at the URL `ready`; its output is in `log`."""
    with log.open("wb") as output:
        started = subprocess.Popen([str(part) for part in command], stdout=output, stderr=output, cwd=cwd)
        try:

            def answers() -> bool:
                assert started.poll() is None, log.read_text()[-4000:]
                return bool(fetch(ready))

            wait_for(f"an answer at {ready}", answers, 120)
            yield
        finally:
            started.terminate()
            try:
                started.wait(20)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()
