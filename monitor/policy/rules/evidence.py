"""Evidence: the tokens that each check's score rests on, the best few per check, kept while a request runs.

A response's tokens go into a table as they come: of each check and request the best few, with the features that gave
most of their scores. One comparison with the weakest of them tells that a token is not among them, as most are not.
Blocks of a prompt wait outside the table, because most prompts end before anybody asks for their evidence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitor.policy.rules.program import Program
from monitor.policy.rules.state import FIRST, Table
from monitor.policy.rules.weights import ScoredRows
from monitor.records import Evidence, FeatureReading, TokenText

TOKENS = 5
"""Tokens kept per check."""
FEATURES = 3
"""Features named per token."""
_MOST_BYTES = 1 << 26
"""Of all blocks that wait. Beyond it the oldest go into the table."""
_STRETCHES = 16
"""Into which a long block is cut to see which tokens cannot be among the best."""
_TOKEN = np.dtype([("token_id", np.int32), ("columns", np.int32, FEATURES), ("values", np.float32, FEATURES)])
"""A kept token: watched columns with the readings there, those that gave most first; −1 where there are no more."""
_BYTES = np.dtype((np.void, _TOKEN.itemsize))
"""The same as bytes, which numpy copies several times as fast as fields."""
Indices = NDArray[np.intp]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of one step."""

    scored: ScoredRows
    """What was read in the pass, and what it comes to."""
    rows: Indices
    """`[tokens]` where each stands in `scored`."""
    positions: NDArray[np.int64]
    """`[tokens]`"""
    token_ids: NDArray[np.int64]
    """`[tokens]`"""
    scores: NDArray[np.float64]
    """`[tokens, checks]`"""


@dataclass(frozen=True, eq=False)
class _Block:
    """The tokens of a step in which lanes have several, waiting outside the table."""

    tokens: Tokens
    scores: NDArray[np.float64]
    """`[tokens, lanes, checks]`, 0 for padding."""
    rows: Indices
    """`[lanes]` in the store."""
    firsts: Indices
    """`[lanes]` where the tokens of each begin."""
    wanted: Bools
    """`[lanes, checks]` whose evidence anybody may ask for."""
    ages: NDArray[np.int64]
    """`[lanes]` of each row when the block came; −1 once its tokens are in the table."""

    @property
    def size(self) -> int:
        """Bytes that it keeps in memory. What it shares with other blocks of its pass counts for each of them."""
        scored = self.tokens.scored
        return (
            scored.scores.nbytes
            + self.scores.nbytes
            + scored.active.columns.nbytes
            + scored.active.values.nbytes
        )


class EvidenceStore:
    """The best tokens so far, of every check and row of a table. Whoever uses it holds the lock of the rules."""

    def __init__(self, program: Program, table: Table) -> None:
        self._program, self._table, self._checks = program, table, len(program.checks)
        self._least = np.zeros((FIRST, self._checks))
        """`[rows, checks]` what a token must score more than to be kept: the least of `_scores`."""
        self._scores = np.zeros((FIRST, self._checks, TOKENS))
        """`[rows, checks, TOKENS]` of the kept tokens, in no order; 0 where there is room for one more."""
        self._positions = np.zeros((FIRST, self._checks, TOKENS), np.int64)
        """As `_scores`."""
        self._tokens = np.zeros((FIRST, self._checks, TOKENS), _BYTES)
        """As `_scores`: a `_TOKEN` each."""
        self._waits = np.zeros(FIRST, bool)
        """`[rows]` True where blocks of the phase may wait."""
        self._blocks: deque[_Block] = deque()
        """Those that wait, the oldest first."""
        self._size = 0
        """Of all of them."""

    def begin(self, rows: Indices, again: Bools) -> None:
        """A phase of some requests begins. Where they had one before (`again`), evidence of conditions goes on."""
        while len(self._waits) <= rows.max():
            self._least, self._scores = _doubled(self._least), _doubled(self._scores)
            self._positions, self._tokens = _doubled(self._positions), _doubled(self._tokens)
            self._waits = _doubled(self._waits)
        # Checks of conditions stand behind those of rules.
        rules, new = len(self._program.simple), rows[~again]
        self._least[rows, :rules] = self._least[new, rules:] = 0.0
        self._scores[rows, :rules] = self._scores[new, rules:] = 0.0
        self._waits[rows] = False

    def add(
        self, tokens: Tokens, scores: NDArray[np.float64], rows: Indices, firsts: Indices, wanted: Bools
    ) -> None:
        """Keep those tokens of a step that are among the best so far.

        `scores` are the step's as `[tokens, lanes, checks]`, 0 for padding. Lane `i` is row `rows[i]`, and its tokens
        begin at `firsts[i]` of `tokens`. `wanted` `[lanes, checks]` says whose evidence anybody may still ask for.
        """
        # Most prompts end before any of their rules fires. Conditions are remembered beyond them.
        if len(scores) > 1 and not len(self._program.leaves):
            self._wait(_Block(tokens, scores, rows, firsts, wanted, self._table.age[rows]))
            return
        if self._waits[rows].any():
            self._take_in(rows)
        self._sort_in(tokens, scores, rows, firsts, wanted)

    def _wait(self, block: _Block) -> None:
        """Keep a block outside the table, and drop or take in the oldest where too much waits."""
        self._blocks.append(block)
        self._size += block.size
        self._waits[block.rows] = True
        while self._blocks and (self._size > _MOST_BYTES or not len(self._lanes(self._blocks[0]))):
            oldest = self._blocks.popleft()
            self._size -= oldest.size
            self._take(oldest, self._lanes(oldest))

    def _take_in(self, rows: Indices) -> None:
        """Put what waits of some rows into the table."""
        asked = np.zeros(len(self._waits), bool)
        asked[rows] = True
        for block in self._blocks:
            lanes = self._lanes(block)
            self._take(block, lanes[asked[block.rows[lanes]]])
        self._waits[rows] = False

    def _lanes(self, block: _Block) -> Indices:
        """Lanes whose tokens are not in the table yet and are of the phase in which their request is."""
        return np.asarray((block.ages == self._table.age[block.rows]).nonzero()[0])

    def _take(self, block: _Block, lanes: Indices) -> None:
        """Put a block's tokens of some lanes into the table."""
        if len(lanes):
            block.ages[lanes] = -1
            scores, rows, firsts = block.scores[:, lanes], block.rows[lanes], block.firsts[lanes]
            self._sort_in(block.tokens, scores, rows, firsts, block.wanted[lanes])

    def _sort_in(
        self, tokens: Tokens, scores: NDArray[np.float64], rows: Indices, firsts: Indices, wanted: Bools
    ) -> None:
        """Put those of a step's tokens into the table that are among the best; arguments are those of `add`."""
        place, pair, rank = _best(scores, np.where(wanted, self._least[rows], np.inf))
        if not len(rank):
            return
        score = scores.reshape(len(scores), -1)[place, pair]
        lane, check = np.divmod(pair, self._checks)
        token, pair = firsts[lane] + place, rows[lane] * self._checks + check
        kept, positions = self._kept(tokens, token, check), tokens.positions[token]
        # One token of each pair of a row and a check at a time, so that they do not meet in the table.
        for n in range(int(rank.max()) + 1):
            mine = ((rank == n) & (score > self._least.take(pair))).nonzero()[0]
            self._insert(pair[mine], score[mine], positions[mine], kept[mine])

    def best(self, row: int, check: int, tokens: Tokens, own: Indices) -> Iterator[tuple[float, int, Any]]:
        """Score, position and kept token of the best tokens of a check so far, strongest first.

        `own`: the request's tokens of a step that were not added yet, up to the one at which it is asked.
        """
        if self._waits[row]:
            self._take_in(np.asarray([row]))
        own = own[np.argsort(-tokens.scores[own, check], kind="stable")[:TOKENS]]
        fresh = self._kept(tokens, own, np.full(len(own), check))
        scores = np.concatenate([self._scores[row, check], tokens.scores[own, check]])
        positions = np.concatenate([self._positions[row, check], tokens.positions[own]])
        every = np.concatenate([self._tokens[row, check], fresh]).view(_TOKEN)
        for i in np.lexsort((positions, -scores))[:TOKENS].tolist():
            if scores[i] > 0:
                yield float(scores[i]), int(positions[i]), every[i]

    def _insert(
        self,
        pair: Indices,
        score: NDArray[np.float64],
        position: NDArray[np.int64],
        token: NDArray[np.void],
    ) -> None:
        """Tokens, each of a pair of its own, take the place of the weakest: of equal ones of the latest."""
        kept = self._scores.reshape(-1, TOKENS).take(pair, axis=0)
        weakest = kept == self._least.take(pair)[:, None]
        latest = np.where(weakest, self._positions.reshape(-1, TOKENS).take(pair, axis=0), -1)
        place = latest.argmax(axis=1)
        kept[np.arange(len(pair)), place] = score
        self._least.put(pair, reduce(np.minimum, kept.T))
        at = pair * TOKENS + place
        self._scores.put(at, score)
        self._positions.put(at, position)
        self._tokens.reshape(-1)[at] = token

    def _kept(self, tokens: Tokens, which: Indices, check: Indices) -> NDArray[np.void]:
        """`[pairs]` tokens of a step as each is kept for a check."""
        kept = np.zeros(len(which), _TOKEN)
        kept["token_id"], kept["columns"] = tokens.token_ids[which], -1
        pair, rank, column, reading = self._program.weights.strongest(
            tokens.scored, tokens.rows[which], check, FEATURES
        )
        kept["columns"][pair, rank], kept["values"][pair, rank] = column, reading
        return kept.view(_BYTES)


def _best(scores: NDArray[np.float64], bound: NDArray[np.float64]) -> tuple[Indices, Indices, Indices]:
    """Of each lane and check the best few scores above their bound: token, pair, and which of the pair's each is.

    `scores` `[tokens, lanes, checks]`, `bound` `[lanes, checks]`; a pair is lane · checks + check. Of equal scores the
    earlier token is the better one.
    """
    if len(scores) == 1:
        pair = (scores[0] > bound).ravel().nonzero()[0]
        return np.zeros_like(pair), pair, np.zeros_like(pair)
    bound = np.nextafter(bound, np.inf)
    if len(scores) > _STRETCHES:
        # So many stretches of the block have a token each that is at least as good as the last of these.
        cuts = np.linspace(0, len(scores), _STRETCHES, endpoint=False).astype(np.intp)
        highest = np.maximum.reduceat(scores, cuts, axis=0)
        bound = np.maximum(bound, np.partition(highest, _STRETCHES - TOKENS, axis=0)[_STRETCHES - TOKENS])
    place, pair = np.divmod((scores >= bound).ravel().nonzero()[0], bound.size)
    order = np.argsort(pair - 1j * scores.reshape(len(scores), -1)[place, pair], kind="stable")
    place, pair = place[order], pair[order]
    rank = np.arange(len(pair)) - np.searchsorted(pair, pair)
    return place[rank < TOKENS], pair[rank < TOKENS], rank[rank < TOKENS]


def _doubled(array: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([array, np.zeros_like(array)])


def shown(
    program: Program, found: Iterator[tuple[float, int, Any]], token_text: TokenText, name: str
) -> tuple[Evidence, ...]:
    """Kept tokens as a detection has them; `name` is the sub-condition's."""
    return tuple(_evidence(program, *one, token_text, name) for one in found)


def _evidence(
    program: Program, score: float, position: int, token: Any, token_text: TokenText, name: str
) -> Evidence:
    token_id, features = int(token["token_id"]), program.watch.features
    readings = tuple(
        FeatureReading(features[column], value)
        for column, value in zip(token["columns"].tolist(), token["values"].tolist(), strict=True)
        if column >= 0
    )
    return Evidence(position, token_id, token_text(token_id), score, readings, name)
