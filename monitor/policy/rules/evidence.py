"""Evidence: the tokens that each check's score rests on, the best few per check, kept while a request runs.

Of a kept token its score is kept, and the features that gave most of it. Most tokens are not among the best, which one
comparison with the weakest kept token tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
_TOKEN = np.dtype(
    [
        ("position", np.int32),
        ("token_id", np.int32),
        ("columns", np.int32, FEATURES),
        ("values", np.float32, FEATURES),
    ]
)
"""A kept token: watched columns with the readings there, those that gave most first; −1 where there are no more."""
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
    shares: Sequence[Shares]
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
        self._program = program
        checks = len(program.checks)
        self._count = np.zeros((FIRST, checks), np.intp)
        """`[rows, checks]` tokens kept."""
        self._least = np.zeros((FIRST, checks))
        """`[rows, checks]` what a token must score more than to be kept: the weakest score, 0 while there is room."""
        self._scores = np.zeros((FIRST, checks, TOKENS))
        """`[rows, checks, TOKENS]` of the kept tokens, in no order."""
        self._tokens = np.zeros((FIRST, checks, TOKENS), _TOKEN)
        """As `_scores`."""

    def begin(self, rows: Indices, again: Bools) -> None:
        """A phase of some requests begins. Where they had one before (`again`), evidence of conditions goes on."""
        while len(self._count) <= rows.max():
            self._count, self._least = _doubled(self._count), _doubled(self._least)
            self._scores, self._tokens = _doubled(self._scores), _doubled(self._tokens)
        # Checks of conditions stand behind those of rules.
        rules, new = len(self._program.simple), rows[~again]
        self._count[rows, :rules] = self._count[new, rules:] = 0
        self._least[rows, :rules] = self._least[new, rules:] = 0.0

    def add(
        self, tokens: Tokens, scores: NDArray[np.float64], rows: Indices, firsts: Indices, wanted: Bools
    ) -> None:
        """Keep those tokens of a step that are among the best so far.

        `scores` are the step's as `[tokens, lanes, checks]`, 0 for padding. Lane `i` is row `rows[i]`, and its tokens
        begin at `firsts[i]` of `tokens`. `wanted` `[lanes, checks]` says whose evidence anybody may still ask for.
        """
        place, lane, check, rank = _best(scores, np.where(wanted, self._least[rows], np.inf))
        if not len(rank):
            return
        score, row = scores[place, lane, check], rows[lane]
        kept = self._kept(tokens, firsts[lane] + place, check)
        # One token of each row and check at a time, so that they do not meet in the table.
        for n in range(int(rank.max()) + 1):
            mine = np.flatnonzero((rank == n) & (score > self._least[row, check]))
            self._insert(row[mine], check[mine], score[mine], kept[mine])

    def best(self, row: int, check: int, tokens: Tokens, own: Indices) -> Iterator[tuple[float, Any]]:
        """Score and kept token of the best tokens of a check so far, strongest first.

        `own`: the request's tokens of a step that were not added yet, up to the one at which it is asked.
        """
        own = own[np.argsort(-tokens.scores[own, check], kind="stable")[:TOKENS]]
        own = own[tokens.scores[own, check] > 0]
        there = int(self._count[row, check])
        scores = np.concatenate([self._scores[row, check, :there], tokens.scores[own, check]])
        fresh = self._kept(tokens, own, np.full(len(own), check))
        every = np.concatenate([self._tokens[row, check, :there], fresh])
        for i in np.lexsort((every["position"], -scores))[:TOKENS].tolist():
            yield float(scores[i]), every[i]

    def _insert(
        self, row: Indices, check: Indices, score: NDArray[np.float64], tokens: NDArray[np.void]
    ) -> None:
        """Tokens take free places, or those of the weakest. Of equal scores the earlier token stays."""
        place = self._count[row, check]
        full = np.flatnonzero(place == TOKENS)
        if len(full):
            place[full] = self._weakest(row[full], check[full])
        self._scores[row, check, place], self._tokens[row, check, place] = score, tokens
        filled = place == TOKENS - 1
        filled[full] = True
        self._count[row, check] = np.where(filled, TOKENS, place + 1)
        row, check = row[filled], check[filled]
        self._least[row, check] = self._scores[row, check].min(axis=1)

    def _weakest(self, row: Indices, check: Indices) -> Indices:
        """Places of the tokens that go first: those of the least score, of several the latest."""
        weakest = self._scores[row, check] == self._least[row, check][:, None]
        return np.asarray(np.where(weakest, self._tokens["position"][row, check], -1).argmax(axis=1))

    def _kept(self, tokens: Tokens, which: Indices, check: Indices) -> NDArray[np.void]:
        """`[pairs]` tokens of a step as they are kept for a check each, with the features that give most to its score."""
        if 4 * len(which) < len(
            tokens.positions
        ):  # the shares of these alone are found sooner than among all
            tokens, which = tokens.some(which, self._program), np.arange(len(which))
        kept = np.zeros(len(which), _TOKEN)
        kept["position"], kept["token_id"] = tokens.positions[which], tokens.token_ids[which]
        kept["columns"] = -1
        pair, reading, share = self._shares(tokens, which, check)
        order = np.lexsort((reading, -share, pair))
        rank = np.arange(len(order)) - np.searchsorted(pair[order], np.arange(len(which)))[pair[order]]
        order, rank = order[rank < FEATURES], rank[rank < FEATURES]
        pair, reading = pair[order], reading[order]
        kept["columns"][pair, rank] = tokens.active.columns[reading]
        kept["values"][pair, rank] = tokens.active.values[reading]
        return kept

    def _shares(
        self, tokens: Tokens, which: Indices, check: Indices
    ) -> tuple[Indices, Indices, NDArray[np.float64]]:
        """What features give to pairs of a token and a check, where it is more than 0: pair, reading, share."""
        checks = tokens.scores.shape[1]
        pairs = np.full(len(tokens.positions) * checks, -1)
        pairs[which * checks + check] = np.arange(len(which))
        found = []
        for part in tokens.shares:
            pair = pairs.take(part.places)
            own = np.flatnonzero((pair >= 0) & (part.values > 0))
            # Probes and signals stand behind the features.
            own = own[tokens.active.columns.take(part.readings[own]) < len(self._program.watch.features)]
            found.append((pair[own], part.readings[own], part.values[own]))
        pair, reading, share = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return pair, reading, share


def _best(
    scores: NDArray[np.float64], bound: NDArray[np.float64]
) -> tuple[Indices, Indices, Indices, Indices]:
    """Token, lane and check of the best few scores of each lane and check above their bound, and which of them each is.

    `scores` `[tokens, lanes, checks]`, `bound` `[lanes, checks]`. Of equal scores the earlier token is the better one.
    """
    if len(scores) == 1:
        lane, check = np.nonzero(scores[0] > bound)
        return np.zeros_like(lane), lane, check, np.zeros_like(lane)
    bound = np.nextafter(bound, np.inf)
    if len(scores) > _STRETCHES:
        # So many stretches of the block have a token each that is at least as good as the last of these.
        cuts = np.linspace(0, len(scores), _STRETCHES, endpoint=False).astype(np.intp)
        highest = np.maximum.reduceat(scores, cuts, axis=0)
        bound = np.maximum(bound, np.partition(highest, _STRETCHES - TOKENS, axis=0)[_STRETCHES - TOKENS])
    place, pair = np.divmod(np.flatnonzero(scores >= bound), bound.size)
    order = np.lexsort((-scores.reshape(len(scores), -1)[place, pair], pair))
    place, pair = place[order], pair[order]
    rank = np.arange(len(pair)) - np.searchsorted(pair, pair)
    place, pair, rank = place[rank < TOKENS], pair[rank < TOKENS], rank[rank < TOKENS]
    return place, *np.divmod(pair, bound.shape[1]), rank


def _doubled(array: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([array, np.zeros_like(array)])


def shown(
    program: Program, found: Iterator[tuple[float, Any]], token_text: TokenText, name: str
) -> tuple[Evidence, ...]:
    """Kept tokens as a detection has them; `name` is the sub-condition's."""
    return tuple(_evidence(program, score, token, token_text, name) for score, token in found)


def _evidence(program: Program, score: float, token: Any, token_text: TokenText, name: str) -> Evidence:
    token_id, features = int(token["token_id"]), program.watch.features
    readings = tuple(
        FeatureReading(features[column], value)
        for column, value in zip(token["columns"].tolist(), token["values"].tolist(), strict=True)
        if column >= 0
    )
    return Evidence(int(token["position"]), token_id, token_text(token_id), score, readings, name)
