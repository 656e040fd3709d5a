"""Sources measured by other processes while this one reads the next.

Knows how work is handed out and taken back in order. Does not know what measuring is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def in_processes(work: Callable[[Given], Made], given: Iterable[Given], jobs: int) -> Iterator[Made]:
    """`work` of each of `given`, in order, by `jobs` processes of one thread each.

    At most `jobs` + 1 pieces are held at a time. `given` is read in this thread, and its errors are raised here.
    """
    pending: deque[Future[Made]] = deque()
    # Spawned, not forked: a fork would copy the locks of torch's threads.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        for piece in given:
            while len(pending) > jobs:
                yield pending.popleft().result()
            pending.append(pool.submit(work, piece))
        while pending:
            yield pending.popleft().result()


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
