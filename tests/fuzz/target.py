"""What is fuzzed: something that reads bytes, and what it may say about bad ones."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from tests.fuzz.mutate import mutated

ACCEPTED, REFUSED = "accepted", "refused"


def refused(error: Exception) -> str:
    """The word for an input that was refused, if it was refused with a reason."""
    if not str(error):
        raise AssertionError(f"{type(error).__name__} says nothing")
    return REFUSED


class Target(Protocol):
    """One reader. `run` gives a short word for what became of the input; any exception is a bug that was found."""

    name: str

    def opened(self) -> AbstractContextManager[object]:
        """What must run while inputs are tried."""

    def corpus(self) -> Sequence[bytes]:
        """Good inputs to begin with; mutations of them are tried."""

    def mutate(self, data: bytes, chance: random.Random, corpus: Sequence[bytes]) -> bytes:
        """Another input."""

    def run(self, data: bytes) -> str:
        """Read it."""


class BytesTarget:
    """The parts that most targets share."""

    name = ""
    words: Sequence[bytes] = ()

    def opened(self) -> AbstractContextManager[object]:
        return nullcontext()

    def mutate(self, data: bytes, chance: random.Random, corpus: Sequence[bytes]) -> bytes:
        return mutated(data, chance, corpus, self.words)
