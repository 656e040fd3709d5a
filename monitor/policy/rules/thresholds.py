"""The thresholds of all checks, some of which depend on how long a text is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from monitor.policy.policy import Check


class Thresholds:
    """`[checks]` where no check looks at lengths, `[tokens, lanes, checks]` otherwise."""

    def __init__(self, checks: Sequence[Check]) -> None:
        self.fixed = np.asarray([check.threshold for check in checks], np.float64)
        """`[checks]`: those without a limit of length."""
        limits = {up_to for check in checks for up_to, _ in check.lengths if up_to is not None}
        self._edges = np.asarray(sorted(limits), np.int64)
        self._table = np.tile(self.fixed, (len(self._edges) + 1, 1))
        for i, check in enumerate(checks):
            if check.lengths:
                self._table[:, i] = [_at(check, int(edge)) for edge in self._edges] + [check.lengths[-1][1]]
        self.vary = any(check.lengths for check in checks)
        """True where a threshold depends on the length."""

    def at(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """Thresholds `[…, checks]` at the n-th tokens `[…, 1 or checks]` of a phase, counted from 1."""
        if not self.vary:
            return self.fixed
        bucket = np.searchsorted(self._edges, tokens)
        if tokens.shape[-1] == 1:
            return np.asarray(self._table[bucket[..., 0]])
        return np.asarray(self._table[bucket, np.arange(len(self.fixed))])


def _at(check: Check, tokens: int) -> float:
    return next(value for up_to, value in check.lengths if up_to is None or tokens <= up_to)
