"""Evidence: the tokens that each check's score rests on, the best few per check, kept while a request runs.

Tokens wait in the order of their passes and are sorted in together, many requests at once, when some detection needs
them or enough of them wait. Of a kept token its score is kept, and the features that gave most of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitor.policy.rules.program import Program
from monitor.policy.rules.state import FIRST, Table
from monitor.policy.rules.weights import Active, spread
from monitor.records import Evidence, FeatureReading, TokenText

TOKENS = 5
"""Tokens kept per check."""
FEATURES = 3
"""Features named per token."""
_MOST_STEPS, _MOST_SCORES = 4, 65_536
"""Tokens are sorted in once so many steps, or scores of tokens by checks, wait. More at once would cost a little less
all in all, and would hold up the pass in which it happens for longer."""
_STRETCHES = 16
"""Into which a long block is cut to see which tokens cannot be among the best."""
Indices = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Tokens:
    """Tokens of some requests that were scored in one step."""

    rows: Indices
    """`[tokens]` the requests' rows in the table."""
    positions: NDArray[np.int64]
    """`[tokens]`"""
    token_ids: NDArray[np.int64]
    """`[tokens]`"""
    scores: NDArray[np.float64]
    """`[tokens, checks]`"""
    active: Active
    """What was read of them."""
    first: int = 0
    """Row of the first token in `active`; the others follow."""

    def __len__(self) -> int:
        return len(self.rows)

    def upto(self, count: int) -> Tokens:
        """The first of them."""
        part = slice(0, count)
        return Tokens(
            self.rows[part],
            self.positions[part],
            self.token_ids[part],
            self.scores[part],
            self.active,
            self.first,
        )

    def some(self, which: Indices) -> Tokens:
        """Some of them, ascending, with what was read of these alone."""
        kept = self.active.some(self.first + which)
        return Tokens(
            self.rows[which], self.positions[which], self.token_ids[which], self.scores[which], kept
        )


@dataclass(frozen=True, eq=False)
class _KeptTokens:
    """Kept tokens as arrays of one length, whatever they belong to."""

    scores: NDArray[np.float64]
    positions: NDArray[np.int64]
    token_ids: NDArray[np.int64]
    columns: NDArray[np.int32]
    """`[…, FEATURES]` watched columns, strongest first; −1 where there are no more."""
    values: NDArray[np.float32]
    """`[…, FEATURES]`"""

    @classmethod
    def blank(cls, *shape: int) -> _KeptTokens:
        return cls(
            np.zeros(shape),
            np.zeros(shape, np.int64),
            np.zeros(shape, np.int64),
            np.full((*shape, FEATURES), -1, np.int32),
            np.zeros((*shape, FEATURES), np.float32),
        )

    def at(self, *index: Any) -> _KeptTokens:
        return _KeptTokens(*(array[index] for array in self._arrays()))

    def put(self, index: Any, other: _KeptTokens) -> None:
        for mine, new in zip(self._arrays(), other._arrays(), strict=True):
            mine[index] = new

    def plus(self, other: _KeptTokens) -> _KeptTokens:
        return _KeptTokens(
            *(np.concatenate(both) for both in zip(self._arrays(), other._arrays(), strict=True))
        )

    def _arrays(self) -> tuple[NDArray[Any], ...]:
        return self.scores, self.positions, self.token_ids, self.columns, self.values


class EvidenceStore:
    """The kept tokens of all rows of a table. Whoever uses it holds the lock of the rules."""

    def __init__(self, program: Program, table: Table) -> None:
        self._program, self._table = program, table
        self._kept = _KeptTokens.blank(FIRST, len(program.checks), TOKENS)
        self._least = np.zeros((FIRST, len(program.checks)))
        """`[rows, checks]` what a token must score more than to be kept."""
        self._waiting: list[tuple[Tokens, NDArray[np.int64]]] = []
        """With the age that each token's row had."""
        self._tokens = 0

    def begin(self, row: int, *, remember: bool) -> None:
        """A phase of a request begins. `remember`: evidence of conditions goes on from the phase before."""
        while len(self._least) <= row:
            self._least = np.concatenate([self._least, np.zeros_like(self._least)])
            self._kept = self._kept.plus(_KeptTokens.blank(*self._kept.scores.shape))
        checks = np.ones(len(self._program.checks), bool)
        checks[self._program.leaves] = not remember
        self._kept.put((row, checks), _KeptTokens.blank(int(checks.sum()), TOKENS))
        self._least[row, checks] = 0.0

    def add(self, tokens: Tokens) -> None:
        """Tokens that wait to be sorted in; those of one row come in the order of their positions."""
        self._waiting.append((tokens, self._table.age[tokens.rows]))
        self._tokens += len(tokens)
        if len(self._waiting) >= _MOST_STEPS or self._tokens * len(self._program.checks) >= _MOST_SCORES:
            self.sort_in()

    def best_of(self, scores: NDArray[np.float64], rows: Indices) -> Indices:
        """Which tokens of `[tokens, lanes, checks]` could be kept: `[found]` of `tokens · lanes`, lanes in their rows.

        A token beyond the best few of its own lane and block never can.
        """
        bound = np.nextafter(self._least[rows], np.inf)
        if len(scores) > _STRETCHES:
            # So many stretches of the block have a token each that is at least as good as the last of these.
            cuts = np.linspace(0, len(scores), _STRETCHES, endpoint=False).astype(np.intp)
            highest = np.maximum.reduceat(scores, cuts, axis=0)
            bound = np.maximum(bound, np.partition(highest, _STRETCHES - TOKENS, axis=0)[_STRETCHES - TOKENS])
        bound[~self._wanted(rows)] = np.inf
        return np.unique(np.flatnonzero(scores >= bound) // scores.shape[2])

    def sort_in(self) -> None:
        """Sort in what waits, as far as its requests are still in the phase that it is of."""
        waiting, self._waiting, self._tokens = self._waiting, [], 0
        if not waiting:
            return
        rows = np.concatenate([tokens.rows for tokens, _ in waiting])
        ages = np.concatenate([age for _, age in waiting])
        scores = np.concatenate([tokens.scores for tokens, _ in waiting])
        wanted = self._wanted(rows) & (scores > self._least[rows])
        wanted[self._table.age[rows] != ages] = False
        token, check = np.nonzero(wanted)
        if len(token):
            self._merge([tokens for tokens, _ in waiting], rows[token], token, check, scores[token, check])

    def best(
        self, row: int, check: int, tokens: Tokens
    ) -> list[tuple[float, int, int, Indices, NDArray[np.float32]]]:
        """The best tokens of a check so far, strongest first: score, position, id, columns and values of features.

        `tokens`: the request's tokens that were not added yet, up to the one at which it is asked.
        """
        self.sort_in()
        kept = self._kept.at(row, check)
        own = np.flatnonzero(tokens.scores[:, check] > 0)
        fresh = self._of_tokens([tokens], own, np.full(len(own), check), tokens.scores[own, check])
        every = kept.plus(fresh)
        order = np.lexsort((every.positions, -every.scores))[:TOKENS]
        return [
            (
                float(every.scores[i]),
                int(every.positions[i]),
                int(every.token_ids[i]),
                every.columns[i][every.columns[i] >= 0].astype(np.intp),
                every.values[i][every.columns[i] >= 0],
            )
            for i in order
            if every.scores[i] > 0
        ]

    def _wanted(self, rows: Indices) -> NDArray[np.bool_]:
        """`[tokens, checks]` whose evidence somebody may still ask for: a rule's until it has fired."""
        table, simple = self._table, self._program.simple
        wanted = table.reading[rows]
        wanted[:, : len(simple)] &= table.armed[np.ix_(rows, simple)]
        return wanted

    def _merge(
        self,
        waiting: list[Tokens],
        rows: Indices,
        token: Indices,
        check: Indices,
        scores: NDArray[np.float64],
    ) -> None:
        """The best of what is kept and of `[pairs]` of tokens and checks. Of equal scores the earlier token stays."""
        checks = len(self._program.checks)
        groups, group = np.unique(rows * checks + check, return_inverse=True)
        row, own = groups // checks, groups % checks
        before = self._kept.at(row, own)
        there = before.scores > 0
        of = np.concatenate([np.nonzero(there)[0], group])
        every = np.concatenate([before.scores[there], scores])
        # What is kept comes before what is new, and that in the order of its passes.
        order = np.lexsort((-every, of))
        rank = np.arange(len(order)) - np.searchsorted(of[order], np.arange(len(groups)))[of[order]]
        best, rank = order[rank < TOKENS], rank[rank < TOKENS]
        old = int(there.sum())
        fresh = best[best >= old] - old
        new = self._of_tokens(waiting, token[fresh], check[fresh], scores[fresh])
        after = _KeptTokens.blank(len(groups), TOKENS)
        was = best < old
        after.put((of[best[was]], rank[was]), before.at(there).at(best[was]))
        after.put((of[best[~was]], rank[~was]), new)
        self._kept.put((row, own), after)
        self._least[row, own] = after.scores[:, -1]

    def _of_tokens(
        self, steps: list[Tokens], token: Indices, check: Indices, scores: NDArray[np.float64]
    ) -> _KeptTokens:
        """`[pairs]`: tokens, numbered through all steps, with the features that give most of a check's score."""
        kept = _KeptTokens.blank(len(token))
        kept.scores[:] = scores
        kept.positions[:] = np.concatenate([s.positions for s in steps])[token]
        kept.token_ids[:] = np.concatenate([s.token_ids for s in steps])[token]
        found = _joined(steps)
        count = found.counts[token]
        pair, entry = np.repeat(np.arange(len(token)), count), spread(found.starts[token], count)
        column, value = found.columns[entry], found.values[entry]
        share = value * self._program.weights.shares(column, check[pair])
        share[column >= len(self._program.watch.features)] = 0.0
        # Few of the features that are active at a token are read by the check.
        read = np.flatnonzero(share > 0)
        pair, column, value, share = pair[read], column[read], value[read], share[read]
        order = np.lexsort((-share, pair))
        rank = np.arange(len(order)) - np.searchsorted(pair[order], np.arange(len(token)))[pair[order]]
        order, rank = order[rank < FEATURES], rank[rank < FEATURES]
        kept.columns[pair[order], rank], kept.values[pair[order], rank] = column[order], value[order]
        return kept


def _joined(steps: list[Tokens]) -> Active:
    """What was read in all steps, rows numbered through all of their tokens."""
    parts = [tokens.active.some(tokens.first + np.arange(len(tokens))) for tokens in steps]
    counts = np.concatenate([part.counts for part in parts])
    columns, values = (
        np.concatenate(own) for own in zip(*((p.columns, p.values) for p in parts), strict=True)
    )
    return Active(np.concatenate([[0], np.cumsum(counts)]), columns, values)


def shown(
    program: Program,
    found: list[tuple[float, int, int, Indices, NDArray[np.float32]]],
    token_text: TokenText,
    name: str,
) -> tuple[Evidence, ...]:
    """Kept tokens as a detection has them; `name` is the sub-condition's."""
    features = program.watch.features
    return tuple(
        Evidence(
            position,
            token_id,
            token_text(token_id),
            score,
            tuple(FeatureReading(features[c], float(v)) for c, v in zip(columns, values, strict=True)),
            name,
        )
        for score, position, token_id, columns, values in found
    )
