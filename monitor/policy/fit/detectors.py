"""What gives a token its score: weighted features of the dictionary, or a probe on the residual stream.

Knows rows of texts with readings and residuals. Does not know how scores are pooled or what a threshold is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from monitor.policy.fit.readings import Floats, Indices, TextReadings


@dataclass(frozen=True)
class Rows:
    """All texts of one fit, in one order."""

    texts: Sequence[str]
    read: TextReadings
    positive: Indices
    """1 for the concept, else 0."""
    groups: Indices
    measured: Indices
    """1 where the row is scored by cross-validation (own examples and benign texts), 0 for extra rows."""
    own: Indices
    """1 for the policy's own examples."""
    hard: Indices
    """1 for benign look-alikes among them."""
    importance: Floats

    @property
    def benign(self) -> Indices:
        """Which rows are benign texts."""
        return np.flatnonzero((self.own == 0) & (self.measured == 1))

    @property
    def everything(self) -> Indices:
        """Every row."""
        return np.arange(len(self.texts))


class Detector(Protocol):
    """Scores tokens."""

    def tokens(self, read: TextReadings, which: Indices) -> list[Floats]:
        """Token scores `[tokens]` of some texts."""


@dataclass(frozen=True)
class Features:
    """Features with weights: a token's score is `readings @ weights`."""

    indices: Indices
    weights: Floats
    stability: Floats

    def tokens(self, read: TextReadings, which: Indices) -> list[Floats]:
        """Token scores of some texts."""
        return [text @ self.weights for text in read.tokens.take(which).columns(self.indices)]


@dataclass(frozen=True)
class Probe:
    """A direction of the residual stream: a token's score is `(residual @ weights + bias) / scale`."""

    weights: Floats
    """`[d_model]`"""
    bias: float
    scale: float = 1.0
    """What counts as 1."""

    def tokens(self, read: TextReadings, which: Indices) -> list[Floats]:
        """Token scores of some texts."""
        return [(read.residual(int(i)) @ self.weights + self.bias) / self.scale for i in which]


@dataclass(frozen=True)
class Signal:
    """An anomaly signal of each token, by its name."""

    name: str

    def tokens(self, read: TextReadings, which: Indices) -> list[Floats]:
        """The signal of some texts."""
        return read.signal(self.name, which)
