"""The thresholds of many checks, some of which depend on how long a text is.

Knows numbers of tokens and thresholds. Does not know scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from monitor.policy.policy import Check, Lengths


class Thresholds:
    """`[checks]` where no check looks at lengths, `[tokens, lanes, checks]` otherwise."""

    def __init__(self, checks: Sequence[Check]) -> None:
        self.fixed = np.asarray([check.threshold for check in checks], np.float64)
        """`[checks]`: those without a limit of length."""
        self._varying = np.asarray([i for i, check in enumerate(checks) if check.lengths], np.intp)
        most = max((len(check.lengths) for check in checks), default=0)
        self._limits = np.full((len(self._varying), most), np.inf)
        self._values = np.zeros((len(self._varying), most))
        for row, i in enumerate(self._varying):
            lengths: Lengths = checks[i].lengths
            self._limits[row, : len(lengths)] = [np.inf if up_to is None else up_to for up_to, _ in lengths]
            self._values[row, : len(lengths)] = [value for _, value in lengths]

    @property
    def vary(self) -> bool:
        """True where a threshold depends on the length."""
        return bool(len(self._varying))

    def at(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """Thresholds `[..., checks]` at the n-th tokens `[..., 1 or checks]` of a phase, counted from 1."""
        if not self.vary:
            return self.fixed
        lead = tokens.shape[:-1]
        counts = np.broadcast_to(tokens, (*lead, len(self.fixed)))[..., self._varying]
        bucket = (counts[..., None] <= self._limits).argmax(axis=-1)
        out = np.broadcast_to(self.fixed, (*lead, len(self.fixed))).copy()
        out[..., self._varying] = self._values[np.arange(len(self._varying)), bucket]
        return out
