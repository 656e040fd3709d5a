"""Runs a target for a number of cases and says what became of them.

A case is a function of target and number, so that `python -m tests.fuzz TARGET --only NUMBER` repeats it.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil

from tests.fuzz.target import Target

HANG = 30.0
"""Seconds after which a case counts as hanging: the process says where, and ends."""
SLOW = 1.0
GROWTH = 8 << 20
"""Bytes by which a process may grow in the second half of its cases: what it gives back is given back before."""
_KEPT = 40


@dataclass
class Outcome:
    """What a run found."""

    target: str
    cases: int = 0
    seconds: float = 0.0
    words: Counter[str] = field(default_factory=Counter)
    bugs: dict[str, str] = field(default_factory=dict)
    """Where it was raised → the first case that did, and the traceback."""
    slowest: tuple[float, int] = (0.0, -1)
    resident: list[int] = field(default_factory=list)

    @property
    def growth(self) -> int:
        """Bytes by which memory grew from the middle to the end."""
        half = len(self.resident) // 2
        return self.resident[-1] - self.resident[half] if half else 0


def case(target: Target, corpus: Sequence[bytes], number: int, seed: int = 0) -> bytes:
    """The input with this number; the first ones are the corpus itself."""
    if number < len(corpus):
        return corpus[number]
    chance = random.Random(f"{target.name} {seed} {number}")
    return target.mutate(chance.choice(corpus), chance, corpus)


def fuzz(
    target: Target,
    cases: int,
    *,
    seconds: float = float("inf"),
    least: int = 1,
    seed: int = 0,
    first: int = 0,
    step: int = 1,
) -> Outcome:
    """Try cases `first`, `first + step`, …; every exception that the target does not expect is kept.

    Ends after `cases` of them, or after so many seconds if `least` were tried by then.
    """
    outcome, process = Outcome(target.name), psutil.Process()
    with target.opened(), _young_garbage():
        corpus = list(target.corpus())
        fresh = list(corpus)
        began = time.perf_counter()
        for number in range(first, first + cases * step, step):
            if outcome.cases >= least and time.perf_counter() - began > seconds:
                break
            data = case(target, fresh, number, seed)
            _try(target, data, number, outcome)
            if outcome.cases % max(1, cases // _KEPT) == 0:
                outcome.resident.append(_settled(process))
        outcome.seconds = time.perf_counter() - began
    return outcome


@contextmanager
def _young_garbage() -> Iterator[None]:
    """Collections look at objects of the cases alone: those of the libraries are a million, and stay."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _settled(process: psutil.Process) -> int:
    """Bytes that are held: garbage collected, and free arenas given back where the C library can."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    resident: int = process.memory_info().rss
    return resident


def _try(target: Target, data: bytes, number: int, outcome: Outcome) -> None:
    faulthandler.dump_traceback_later(HANG, exit=True, file=sys.__stderr__)
    began = time.perf_counter()
    try:
        outcome.words[target.run(data)] += 1
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        outcome.words["bug"] += 1
        outcome.bugs.setdefault(_place(error), f"case {number}: {''.join(traceback.format_exception(error))}")
    finally:
        faulthandler.cancel_dump_traceback_later()
    taken = time.perf_counter() - began
    outcome.slowest = max(outcome.slowest, (taken, number))
    outcome.cases += 1


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/monitor/" in frame.filename] or frames
    return f"{type(error).__name__} at {ours[-1].filename.rpartition('/')[2]}:{ours[-1].lineno}"
