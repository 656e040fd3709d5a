"""What a measurement should have been, and how far it is off.

Knows three sources, best first: a record of this very pair (`verified.json`), the declared values of the
dictionary's card, none. Does not know what could have gone wrong.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from monitor.dictionary.formats.card import Card
from monitor.model.selftest.measurement import Measurement
from monitor.model.selftest.verified_records import Record


class ExpectedSource(enum.StrEnum):
    """Where the expected values come from."""

    RECORDED = "recorded"
    """Measured by `dictionary verify` with this model, in this dtype."""
    RECORDED_ELSEWHERE = "recorded in another dtype"
    DECLARED = "declared"
    """By the makers of the dictionary, on other texts."""
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far a measurement may be off."""

    ratio: float
    """L0 and norms: greatest factor either way."""
    variance: float
    """Explained variance: greatest difference."""
    early_ratio: float = math.inf
    early_variance: float = math.inf
    outliers: float = math.inf
    """Share of norm outliers: greatest difference."""


BOUNDS = {
    # The same sum in another order: what differs between machines is in the fourth digit.
    ExpectedSource.RECORDED: Bounds(1.03, 0.008, 1.06, 0.015, 0.005),
    ExpectedSource.RECORDED_ELSEWHERE: Bounds(1.08, 0.02, 1.15, 0.04, 0.01),
    # Other texts, other lengths: only what is plainly broken shows.
    ExpectedSource.DECLARED: Bounds(1.75, 0.15),
    ExpectedSource.NONE: Bounds(math.inf, math.inf),
}


_SAMPLED = 1.5
"""How far L0 may be off where it is estimated from a sample of the features."""

_CLOSE = Bounds(1.25, 0.05)
"""For telling explanations apart where only declared values are known."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Values to hold a measurement against; None where nothing is known."""

    source: ExpectedSource
    l0: float | None = None
    explained_variance: float | None = None
    early_l0: float | None = None
    early_explained_variance: float | None = None
    norm: float | None = None
    outliers: float | None = None
    place: str | None = None
    """Where a record was made."""

    @property
    def bounds(self) -> Bounds:
        """How far a measurement may be off."""
        return BOUNDS[self.source]


@dataclass(frozen=True, slots=True)
class ComparedNumber:
    """One number: measured, expected, and how far off in units of what is allowed (above 1 is too far)."""

    check: str
    """Which check it belongs to; see `result.CHECKS`."""
    name: str
    measured: float
    expected: float | None
    off: float
    allowed: str


def expected_of(card: Card, record: Record | None, dtype: str) -> Expected:
    """The best source that there is."""
    if record is not None:
        found = record.measured
        return Expected(
            ExpectedSource.RECORDED if record.dtype == dtype else ExpectedSource.RECORDED_ELSEWHERE,
            found.l0,
            found.explained_variance,
            found.early_l0,
            found.early_explained_variance,
            found.norm,
            found.outliers,
            record.place,
        )
    if card.l0 is not None or card.explained_variance is not None:
        return Expected(ExpectedSource.DECLARED, card.l0, card.explained_variance)
    return Expected(ExpectedSource.NONE)


def compare(
    found: Measurement, expected: Expected, bounds: Bounds | None = None
) -> tuple[ComparedNumber, ...]:
    """Every number that is measured, beside what it should be."""
    bounds = bounds or expected.bounds
    if not found.whole:
        wide = max(bounds.ratio, _SAMPLED)
        return (
            _ratio("l0", "L0", found.l0, expected.l0, wide),
            _ratio("norm", "median norm", found.norm, expected.norm, bounds.ratio),
            _difference("norm", "norm outliers", found.outliers, expected.outliers, bounds.outliers),
        )
    return (
        _ratio("l0", "L0", found.l0, expected.l0, bounds.ratio),
        _difference(
            "variance",
            "explained variance",
            found.explained_variance,
            expected.explained_variance,
            bounds.variance,
        ),
        _ratio("bos", "L0, first tokens", found.early_l0, expected.early_l0, bounds.early_ratio),
        _difference(
            "bos",
            "explained variance, first tokens",
            found.early_explained_variance,
            expected.early_explained_variance,
            bounds.early_variance,
        ),
        _ratio("norm", "median norm", found.norm, expected.norm, bounds.ratio),
        _difference("norm", "norm outliers", found.outliers, expected.outliers, bounds.outliers),
    )


def far(found: Measurement, expected: Expected) -> float:
    """How far a measurement is off, finely enough to tell explanations apart; 1 or less explains."""
    declared = expected.source is ExpectedSource.DECLARED
    return distance(compare(found, expected, _CLOSE if declared else None))


def distance(lines: tuple[ComparedNumber, ...]) -> float:
    """How far the farthest number is off, in units of what is allowed; 0 where nothing is known."""
    return max((line.off for line in lines if line.expected is not None), default=0.0)


def _ratio(check: str, name: str, found: float, expected: float | None, bound: float) -> ComparedNumber:
    if expected is None or math.isinf(bound):
        return ComparedNumber(check, name, found, expected, 0.0, "")
    off = abs(math.log(max(found, 1e-9) / max(expected, 1e-9))) / math.log(bound)
    return ComparedNumber(
        check, name, found, expected, _number(off), f"{expected / bound:.3g} to {expected * bound:.3g}"
    )


def _difference(check: str, name: str, found: float, expected: float | None, bound: float) -> ComparedNumber:
    if expected is None or math.isinf(bound):
        return ComparedNumber(check, name, found, expected, 0.0, "")
    off = abs(found - expected) / bound
    return ComparedNumber(
        check, name, found, expected, _number(off), f"{expected - bound:.3f} to {expected + bound:.3f}"
    )


def _number(off: float) -> float:
    """Infinity for what is no number, so that it never passes."""
    return off if math.isfinite(off) else math.inf
