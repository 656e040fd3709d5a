"""Child processes and threads that end with the test that started them, however it ends."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def ending(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """After the block the process is gone and its pipes are closed: one that is left would fail some later test."""
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


@contextmanager
def beside(*work: Callable[[], object]) -> Iterator[threading.Event]:
    """Does each piece of work over and over on a thread of its own, until the block is left or the event is set."""
    over = threading.Event()

    def repeat(do: Callable[[], object]) -> None:
        while not over.is_set():
            do()

    threads = [threading.Thread(target=repeat, args=(do,), daemon=True) for do in work]
    for thread in threads:
        thread.start()
    try:
        yield over
    finally:
        over.set()
        for thread in threads:
            thread.join(60)


def four_at_once(work: Callable[[], object]) -> None:
    """Does the work on four threads, and returns when all have done it."""
    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
