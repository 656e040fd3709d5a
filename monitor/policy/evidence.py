"""The tokens that each rule's score rests on: a few per rule, kept while a request runs.

Knows scores and readings of tokens it was shown. Does not know thresholds or pooling.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.policy.pooling import Scores
from monitor.policy.program import Program
from monitor.records import Evidence, FeatureReading, TokenText

TOKENS = 5
"""Evidence tokens kept per rule."""
FEATURES = 3
"""Features named per evidence token."""

_Entry = tuple[float, int, int, NDArray[np.float32]]
"""Score, minus the position (earlier tokens win ties), token id, readings `[watched]`."""


@dataclass(frozen=True, slots=True)
class ScoredBlock:
    """Tokens of one block with what rules made of them."""

    scores: Scores
    """`[tokens, rules]`, before pooling."""
    start: int
    """Position of the first token."""
    token_ids: tuple[int, ...]
    readings: NDArray[np.float32]
    """`[tokens, watched]`"""


class EvidenceBook:
    """The highest-scoring tokens so far of each rule, in one phase of one request."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._heaps: list[list[_Entry]] = [[] for _ in program.rules]
        self._least = np.zeros(len(program.rules))

    def add(self, block: ScoredBlock, done: NDArray[np.bool_]) -> None:
        """Take the best tokens of a block for the rules that are not `done` `[rules]`."""
        for rule in np.flatnonzero((block.scores > self._least).any(axis=0) & ~done):
            heap = _extend(self._heaps[rule], block, int(rule), len(block.token_ids))
            self._heaps[rule] = heap
            self._least[rule] = heap[0][0] if len(heap) == TOKENS else 0.0

    def until(
        self, block: ScoredBlock, rule: int, tokens: int, token_text: TokenText
    ) -> tuple[Evidence, ...]:
        """Evidence of a rule at the first `tokens` of a block that was not added yet, strongest first."""
        heap = _extend(self._heaps[rule], block, rule, tokens)
        return tuple(
            Evidence(-place, token, token_text(token), score, self._features(rule, row))
            for score, place, token, row in sorted(heap, key=lambda e: (-e[0], -e[1]))
        )

    def _features(self, rule: int, row: NDArray[np.float32]) -> tuple[FeatureReading, ...]:
        share = row * self._program.weights[:, rule]
        best = [i for i in np.argsort(-share, kind="stable")[:FEATURES] if share[i] > 0]
        return tuple(FeatureReading(self._program.watch.features[i], float(row[i])) for i in best)


def _extend(heap: list[_Entry], block: ScoredBlock, rule: int, tokens: int) -> list[_Entry]:
    """A heap of at most TOKENS entries: the best of `heap` and of the first `tokens` tokens of the block."""
    heap = heap.copy()
    column = block.scores[:tokens, rule]
    for t in np.argsort(-column, kind="stable")[:TOKENS]:
        least = heap[0][0] if len(heap) == TOKENS else 0.0
        if column[t] > least:
            place = -(block.start + int(t))
            heapq.heappush(heap, (float(column[t]), place, block.token_ids[t], block.readings[t].copy()))
            if len(heap) > TOKENS:
                heapq.heappop(heap)
    return heap
