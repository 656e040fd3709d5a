"""What a request brings to the rules: the policies that apply to it, and blocks of tokens of which some count.

Knows masks and rows. Does not know scores or what becomes of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.policy.policy import Policy
from monitor.policy.rules.program import merge_clamps
from monitor.records import Clamp, Readings, TokenBlock


@dataclass(frozen=True)
class Applying:
    """The policies that apply to a request."""

    policies: tuple[Policy, ...]
    rules: NDArray[np.bool_]
    """`[rules]` of the program that are theirs."""
    checks: NDArray[np.bool_]
    """`[checks]` of the program that are theirs."""

    @property
    def closed(self) -> bool:
        """True where one that acts blocks what could not be scored."""
        return any(policy.closed and policy.enforced for policy in self.policies)

    def clamps(self) -> tuple[Clamp, ...]:
        """Clamps that hold from the first token."""
        return merge_clamps([c for p in self.policies if p.clamps_always and p.enforced for c in p.clamps])


@dataclass(frozen=True)
class Accepted:
    """A block that was looked at before it is scored."""

    block: TokenBlock
    cause: str = ""
    """Why it cannot be scored."""
    kept: NDArray[np.intp] | None = None
    """Its rows that count; None where none does."""

    @property
    def readings(self) -> Readings:
        """Of the rows that count."""
        readings = self.block.readings
        return readings if self.kept is None or len(self.kept) == len(readings) else readings[self.kept]

    @property
    def positions(self) -> NDArray[np.int64]:
        """Of the rows that count."""
        return np.asarray([] if self.kept is None else self.kept + self.block.start, np.int64)

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Of the rows that count."""
        return () if self.kept is None else tuple(self.block.token_ids[row] for row in self.kept)

    def failing(self, cause: str) -> Accepted:
        """The same block, which could not be scored after all."""
        return Accepted(self.block, cause)
