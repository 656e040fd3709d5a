"""Measure whether a policy's clamps suppress its concept.

Two values are taken for each token: how strongly the clamped features still read after the clamps, and how strongly a
probe at a later layer finds the concept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.records import Readings, Suppression, SuppressionPlan


@dataclass(frozen=True, slots=True)
class CheckRows:
    """The measurements of one policy's clamps on consecutive tokens of one request, from one forward pass."""

    applied: NDArray[np.bool_]
    """`[tokens]` whether a clamp of the policy edited the token."""
    before: NDArray[np.float32]
    """`[tokens]` sum of the features' readings before the clamps."""
    after: NDArray[np.float32]
    """`[tokens]` sum of the features' readings of the clamped residuals."""
    later: NDArray[np.float32] | None
    """`[tokens]` the later probe's score, attention sinks left out; None where the policy has none."""


@dataclass(frozen=True, slots=True)
class Watched:
    """Where the tap's buffers hold the values that one policy's check needs."""

    slots: tuple[int, ...]
    """Slots of the features that the policy clamps."""
    column: int | None
    """Column of the later probe in `TapBuffers.later`; None where no probe is read."""


class Check:
    """Sums up the measurements of one policy's clamps over the tokens of one request."""

    def __init__(self, plan: SuppressionPlan) -> None:
        self._plan = plan
        self._edited = 0
        self._before = self._after = 0.0
        self._average = 0.0
        self._highest = -np.inf
        self._read = False
        self.begun = False
        """True once a token has run while the policy suppressed."""

    def add(self, rows: CheckRows) -> None:
        """Add the measurements of the next tokens, in the order of the sequence."""
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
        """The result so far, as the verdict reports it."""
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
    """The measurements of one policy, from those of its request.

    `before`, `after` and `chosen` are `[tokens, slots]`. `slots` are the policy's own, and `later` has a score for each
    token that is no attention sink.
    """
    mine = list(slots)
    return CheckRows(
        np.any(chosen[:, mine], axis=1),
        before[:, mine].sum(axis=1),
        after[:, mine].sum(axis=1),
        later,
    )
