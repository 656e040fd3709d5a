"""Tokens of a request as the page shows them: text, readings, and how near each brings which rule to its threshold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from monitor.policy.rules.token_scores import TokenScores
from monitor.records import Phase, Readings, ScoredToken, ScoredTokens, TokenTexts, token_records
from monitor.rpc.ports import TokenisedPrompt
from monitor.telemetry.decisions import codec
from monitor.telemetry.decisions.tokens import Stretch
from monitor.telemetry.decisions.trail import Trail

FAINT = 0.05
"""Shares of thresholds below this are left out."""
STRONGEST = 96
"""Features that are shown of a token at most; a dictionary has fewer active ones, except untrained ones."""


class TokenStrip:
    """The tokens of one request, in order, as they are released."""

    def __init__(self, scores: TokenScores, trail: Trail, texts: TokenTexts) -> None:
        """`trail` keeps its readings."""
        self._scores, self._trail, self._texts = scores, trail, texts
        self._read = 0
        self._judged = {Phase.PROMPT: 0, Phase.RESPONSE: 0}
        self._shares: dict[int, list[list[float]]] = {}
        self._passed_over: set[int] = set()
        self.ids: list[int] = []
        """Token ids of all that was taken."""

    def take(self, parts: Iterable[ScoredTokens | None]) -> list[dict[str, Any]]:
        """The next released tokens as JSON: those of the decision log's fields, with `rules` and `passed_over`."""
        held = [part for part in parts if part is not None]
        self.ids += [token for part in held for token in part.token_ids]
        self._absorb()
        return [self._shown(record) for record in token_records(held, self._texts)]

    def _shown(self, record: ScoredToken) -> dict[str, Any]:
        made: dict[str, Any] = codec.dump(record)
        if shares := self._shares.pop(record.position, None):
            made["rules"] = shares
        if record.position in self._passed_over:
            made["passed_over"] = True
        return made

    def _absorb(self) -> None:
        stretches = self._trail.stretches
        for part in stretches[self._read :]:
            if part.failure is None and part.tokens:
                self._score(part)
        self._read = len(stretches)

    def _score(self, part: Stretch) -> None:
        """Note how near each token of a stretch brings every rule; what rules pass over brings none anywhere."""
        readings: Readings = np.zeros((part.tokens, len(self._scores.watch)), np.float32)
        for row, column, value in part.values:
            readings[row, column] = value
        special = {*part.special, *((0,) if part.start == 0 else ())}
        self._passed_over |= special
        kept = [row for row in range(part.tokens) if part.start + row not in special]
        shares = self._scores.shares(readings[kept], part.phase, self._judged[part.phase])
        self._judged[part.phase] += len(kept)
        for row, found in zip(kept, shares, strict=True):
            named = [[int(rule), round(float(found[rule]), 3)] for rule in np.flatnonzero(found >= FAINT)]
            if named:
                self._shares[part.start + row] = named


def all_features(inspected: Sequence[Any]) -> list[list[list[float]]]:
    """For each token of an inspected text its features with their readings, strongest first, as JSON."""
    return [[[one.feature, round(one.reading, 4)] for one in token.features] for token in inspected]


def begins(whole: Sequence[int], beginnings: Sequence[TokenisedPrompt]) -> list[int]:
    """Where each further turn of a conversation begins among its tokens.

    `beginnings` are the conversation up to each turn; where one is no beginning of the whole, as far as both agree.
    """
    found = []
    for part in beginnings:
        same = (a == b for a, b in zip(whole, part.ids, strict=False))
        found.append(next((n for n, equal in enumerate(same) if not equal), min(len(part.ids), len(whole))))
    return found
