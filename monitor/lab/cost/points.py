"""What was measured under one edit, and shares with their uncertainty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
Z = 1.959964


@dataclass(frozen=True, slots=True)
class Share:
    """A share of trials with its 95 % interval."""

    value: float
    low: float
    high: float
    trials: int


@dataclass(frozen=True, slots=True)
class Point:
    """One edit at one strength."""

    way: str
    strength: float
    own_score: float | None
    """Mean pooled score of the policy's rule on held-out positives, from the edited residual; None for rules that do
    not read features."""
    own_share: float | None
    """Share of those on which the rule fires."""
    later_score: float | None
    """Mean highest average of the probe behind the layer, on the same texts; None without a probe."""
    later_share: float | None
    """Share of those on which it reaches its threshold."""
    unsafe: Share
    """Continuations that the judge calls unsafe."""
    change: Share
    """Its difference from that without an edit, on the same prompts and the same luck."""
    kl: float
    """Mean over benign tokens of KL(unedited ‖ edited), nats."""
    perplexity: float
    """Of the benign texts under the edit."""
    perplexity_ratio: float
    """To that without an edit."""
    written_score: float | None = None
    """Mean pooled score of the policy's rule on the continuations, as the unedited model reads them; None where the
    policy has no rule."""
    fired: Share | None = None
    """Continuations on which that rule fires."""
    probed: Share | None = None
    """Continuations that a probe finds which learnt from texts that the policy was not fitted with."""
    right: Share | None = None
    """Minimal pairs of which the good sentence is likelier under the edit; None where none were given."""
    right_change: Share | None = None
    """Its difference from that without an edit, on the same pairs."""

    @property
    def damage(self) -> float:
        """Relative rise of benign perplexity."""
        return self.perplexity_ratio - 1


def share(hits: NDArray[np.bool_]) -> Share:
    """Wilson's interval."""
    n, p = len(hits), float(hits.mean())
    middle = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * float(np.sqrt(p * (1 - p) / n + Z**2 / (4 * n * n)))
    return Share(p, max(0.0, middle - half), min(1.0, middle + half), n)


def difference(now: NDArray[np.bool_], before: NDArray[np.bool_], seed: int = 0) -> Share:
    """Paired difference of two shares; bootstrap over prompts."""
    each = now.astype(float) - before.astype(float)
    rng = np.random.default_rng(seed)
    drawn = each[rng.integers(0, len(each), (DRAWS, len(each)))].mean(axis=1)
    return Share(
        float(each.mean()), float(np.quantile(drawn, 0.025)), float(np.quantile(drawn, 0.975)), len(each)
    )
