"""Evidence: the tokens that each check's score rests on, the best few per check, kept while a request runs.

Of a kept token its score is kept, and the features that gave most of it. Most tokens are not among the best, which one
comparison with the weakest kept token tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitor.policy.rules.program import Program
from monitor.policy.rules.state import FIRST
from monitor.policy.rules.weights import Active, Shares
from monitor.records import Evidence, FeatureReading, TokenText

TOKENS = 5
"""Tokens kept per check."""
FEATURES = 3
"""Features named per token."""
_STRETCHES = 16
"""Into which a long block is cut to see which tokens cannot be among the best."""
_TOKEN = np.dtype([("token_id", np.int32), ("columns", np.int32, FEATURES), ("values", np.float32, FEATURES)])
"""A kept token: watched columns with the readings there, those that gave most first; −1 where there are no more."""
_BYTES = np.dtype((np.void, _TOKEN.itemsize))
"""As numpy copies it soonest."""
Indices = NDArray[np.intp]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of one step, with what was read of them."""

    positions: NDArray[np.int64]
    """`[tokens]`"""
    token_ids: NDArray[np.int64]
    """`[tokens]`"""
    active: Active
    shares: Shares
    """What the readings in `active` give to the scores."""
    scores: NDArray[np.float64]
    """`[tokens, checks]`"""

    @classmethod
    def of(
        cls, program: Program, positions: NDArray[np.int64], token_ids: NDArray[np.int64], read: Active
    ) -> Tokens:
        """Tokens with what was read of them, which is scored here."""
        shares = program.weights.shares(read)
        return cls(positions, token_ids, read, shares, program.weights.scores(shares, len(read)))

    def some(self, which: Indices, program: Program) -> Tokens:
        """Some of them, in that order."""
        return Tokens.of(program, self.positions[which], self.token_ids[which], self.active.some(which))


class EvidenceStore:
    """The best tokens so far, of every request and check. Whoever uses it holds the lock of the rules."""

    def __init__(self, program: Program) -> None:
        self._program, self._checks = program, len(program.checks)
        self._least = np.zeros((FIRST, self._checks))
        """`[rows, checks]` what a token must score more than to be kept: the least of `_scores`."""
        self._scores = np.zeros((FIRST, self._checks, TOKENS))
        """`[rows, checks, TOKENS]` of the kept tokens, in no order; 0 where there is room for one more."""
        self._positions = np.zeros((FIRST, self._checks, TOKENS), np.int64)
        """As `_scores`."""
        self._tokens = np.zeros((FIRST, self._checks, TOKENS), _BYTES)
        """As `_scores`: a `_TOKEN` each."""

    def begin(self, rows: Indices, again: Bools) -> None:
        """A phase of some requests begins. Where they had one before (`again`), evidence of conditions goes on."""
        while len(self._least) <= rows.max():
            self._least, self._scores = _doubled(self._least), _doubled(self._scores)
            self._positions, self._tokens = _doubled(self._positions), _doubled(self._tokens)
        # Checks of conditions stand behind those of rules.
        rules, new = len(self._program.simple), rows[~again]
        self._least[rows, :rules] = self._least[new, rules:] = 0.0
        self._scores[rows, :rules] = self._scores[new, rules:] = 0.0

    def add(
        self, tokens: Tokens, scores: NDArray[np.float64], rows: Indices, firsts: Indices, wanted: Bools
    ) -> None:
        """Keep those tokens of a step that are among the best so far.

        `scores` are the step's as `[tokens, lanes, checks]`, 0 for padding. Lane `i` is row `rows[i]`, and its tokens
        begin at `firsts[i]` of `tokens`. `wanted` `[lanes, checks]` says whose evidence anybody may still ask for.
        """
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
        """`[pairs]` tokens of a step as each is kept for a check, with the features that give most to its score."""
        if 4 * len(which) < len(tokens.positions):  # the shares of few are found sooner alone than among all
            tokens, which = tokens.some(which, self._program), np.arange(len(which))
        kept = np.zeros(len(which), _TOKEN)
        kept["token_id"], kept["columns"] = tokens.token_ids[which], -1
        pair, reading = self._strongest(tokens, which * self._checks + check)
        rank = np.arange(len(pair)) - np.searchsorted(pair, np.arange(len(which)))[pair]
        pair, reading, rank = pair[rank < FEATURES], reading[rank < FEATURES], rank[rank < FEATURES]
        kept["columns"][pair, rank] = tokens.active.columns[reading]
        kept["values"][pair, rank] = tokens.active.values[reading]
        return kept.view(_BYTES)

    def _strongest(self, tokens: Tokens, places: Indices) -> tuple[Indices, Indices]:
        """Of scores, by their places, the readings of features that give to them: which score, which reading.

        Score by score, those that give most first; of equal ones the first.
        """
        shares, count = tokens.shares, len(tokens.positions) * self._checks
        number = np.full(count, -1)
        number[places] = np.arange(len(places))
        score = number.take(shares.places)
        own = ((score >= 0) & (shares.values > 0)).nonzero()[0]
        # Probes and signals stand behind the features.
        own = own[tokens.active.columns.take(shares.readings[own]) < len(self._program.watch.features)]
        own = own[np.argsort(shares.readings[own], kind="stable")]
        # Complex numbers are sorted by their real parts, then by the imaginary ones.
        own = own[np.argsort(score[own] - 1j * shares.values[own], kind="stable")]
        return score[own], shares.readings[own]


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
