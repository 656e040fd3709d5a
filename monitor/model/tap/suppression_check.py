"""Whether suppression holds: how much of the clamped features is left, and what a probe at a later layer reads.

It is computed for each token from the readings before and after the clamps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.records import Readings, Suppression, SuppressionPlan


@dataclass(frozen=True, slots=True)
class CheckRows:
    """What a pass says about one policy's clamps on consecutive tokens of one request."""

    applied: NDArray[np.bool_]
    """`[tokens]` a clamp of the policy edited the token."""
    before: NDArray[np.float32]
    """`[tokens]` sum of the features' readings before the clamps."""
    after: NDArray[np.float32]
    """`[tokens]` the same, encoded again."""
    later: NDArray[np.float32] | None
    """`[tokens]` the later probe's score; None where the policy has none."""

    def part(self, start: int, stop: int) -> CheckRows:
        """Some of the tokens."""
        later = None if self.later is None else self.later[start:stop]
        return CheckRows(self.applied[start:stop], self.before[start:stop], self.after[start:stop], later)


@dataclass(frozen=True, slots=True)
class Watched:
    """Where a pass leaves what a plan needs."""

    slots: tuple[int, ...]
    """Of the features that the policy clamps."""
    column: int | None
    """Of the later probe; None where it is not read."""


class Check:
    """What became of one policy's clamps in one request so far."""

    def __init__(self, plan: SuppressionPlan) -> None:
        self._plan = plan
        self._edited = 0
        self._before = self._after = 0.0
        self._average = 0.0
        self._highest = -np.inf
        self._read = False
        self.begun = False
        """Tokens ran while the policy suppressed."""

    def add(self, rows: CheckRows) -> None:
        """Tokens in order."""
        self.begun = True
        self._edited += int(rows.applied.sum())
        self._before += float(rows.before[rows.applied].sum(dtype=np.float64))
        self._after += float(rows.after[rows.applied].sum(dtype=np.float64))
        probe = self._plan.probe
        if probe is None or rows.later is None:
            return
        keep = 2.0 ** (-1.0 / probe.half_life)
        for score in map(float, rows.later):
            self._average = keep * self._average + (1.0 - keep) * score
            # A score that is no number stays for good: what was not read must not look as if it had held.
            if not self._average <= self._highest:
                self._highest = self._average
            self._read = True

    def found(self) -> Suppression:
        """What the verdict says."""
        probe, edited = self._plan.probe, max(self._edited, 1)
        return Suppression(
            policy=self._plan.policy,
            features=self._plan.features,
            tokens_edited=self._edited,
            before=self._before / edited,
            after=self._after / edited,
            probe_score=self._highest if self._read else None,
            probe_threshold=probe.threshold if probe is not None and self._read else None,
        )


def check_rows(
    slots: Sequence[int],
    before: Readings,
    after: Readings,
    chosen: NDArray[np.bool_],
    later: NDArray[np.float32] | None,
) -> CheckRows:
    """The rows of one policy, from those of a request: `[tokens, slots]` each, `later` `[tokens]`."""
    mine = list(slots)
    return CheckRows(
        np.any(chosen[:, mine], axis=1), before[:, mine].sum(axis=1), after[:, mine].sum(axis=1), later
    )
