"""What suppression is checked against, and what the check found: plain values.

Knows the words only. Does not know how anything is read. Imports nothing of this project.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GONE = 0.9
"""Least share of the clamped features' reading that must be gone at the layer for a suppression to have held there."""


@dataclass(frozen=True, eq=False)
class LaterProbe:
    """A linear probe on the residual stream after a layer behind the tapped one: `score = weights · x + bias`.

    Scores of tokens are averaged by a moving average with this half-life, starting at zero; the concept is there
    again where the average reaches the threshold.
    """

    layer: int
    weights: NDArray[np.float32]
    """`[d_model]`"""
    bias: float
    threshold: float
    half_life: float


@dataclass(frozen=True, eq=False)
class SuppressionPlan:
    """What to look at while a policy suppresses."""

    policy: str
    features: tuple[int, ...]
    """Those that it clamps."""
    probe: LaterProbe | None = None


@dataclass(frozen=True, slots=True)
class Suppression:
    """What became of a policy's clamps in one request."""

    policy: str
    features: tuple[int, ...]
    tokens_edited: int
    """Tokens whose residual was changed."""
    before: float
    """Sum of the features' readings, mean over the edited tokens, from the residual before any clamp."""
    after: float
    """The same, encoded again after the clamps."""
    probe_score: float | None = None
    """The later probe's highest average over tokens that ran while the policy suppressed; None without a probe."""
    probe_threshold: float | None = None

    @property
    def held_at_layer(self) -> bool:
        """True where at least nine tenths of the reading were gone when it was encoded again."""
        return self.after <= (1 - GONE) * self.before

    @property
    def came_back(self) -> bool:
        """True where the later probe found the concept again."""
        if self.probe_score is None or self.probe_threshold is None:
            return False
        # Not `>=`: a score that is no number must not look as if the concept had stayed away.
        return not self.probe_score < self.probe_threshold

    @property
    def held(self) -> bool:
        """True where the reading was gone at the layer and the later probe, if there is one, stayed quiet."""
        return self.held_at_layer and not self.came_back


@dataclass(frozen=True, eq=False)
class SuppressionNeeds:
    """What a policy set needs of a running model besides columns."""

    plans: tuple[SuppressionPlan, ...] = ()
    whole: bool = False
    """True where a policy drops the error term, which takes the whole dictionary."""
