"""Expected values of the self-test's numbers, how far each may deviate, and how far it does.

Expected values come from a record of this very pair (`verified.json`) where there is one, else from the dictionary's
card. Where neither has them, nothing is compared.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from monitor.dictionary.formats.card import DictionaryCard
from monitor.model.selftest.measurement import KindNumbers, Measurement
from monitor.model.selftest.verified_records import Record


class ExpectedSource(enum.StrEnum):
    """Where the expected values come from."""

    RECORDED = "recorded"
    """Measured by `dictionary verify` with this model in this dtype."""
    RECORDED_ELSEWHERE = "recorded in another dtype"
    """Measured by `dictionary verify` with this model in another dtype."""
    DECLARED = "declared"
    """Declared by the makers of the dictionary, on other texts."""
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far a measurement may deviate from what is expected."""

    ratio: float
    """Greatest factor, up or down, for L0 and the median norm."""
    variance: float
    """Greatest difference for the explained variance."""
    early_ratio: float = math.inf
    """The same as `ratio`, for the first tokens of each text."""
    early_variance: float = math.inf
    """The same as `variance`, for the first tokens of each text."""
    outliers: float = math.inf
    """Greatest difference for the share of norm outliers."""


BOUNDS = {
    # Machines add in different orders, which changes the fourth digit.
    ExpectedSource.RECORDED: Bounds(1.03, 0.008, 1.06, 0.015, 0.005),
    ExpectedSource.RECORDED_ELSEWHERE: Bounds(1.08, 0.02, 1.15, 0.04, 0.01),
    # Declared values were measured on other texts of other lengths, so only gross mistakes are found.
    ExpectedSource.DECLARED: Bounds(1.75, 0.15),
    ExpectedSource.NONE: Bounds(math.inf, math.inf),
}


_KIND = Bounds(1.35, 0.1)
"""Bounds of declared values beside the numbers of one kind of text."""
WELL = 0.3
"""Explained variance from which on a dictionary of which nothing is declared counts as read right."""
_SAMPLED = 1.5
"""Greatest factor for L0 where it is estimated from a sample of the features."""

_CLOSE = Bounds(1.25, 0.05)
"""Bounds for ranking possible causes where only declared values are known."""


@dataclass(frozen=True, slots=True)
class Expected:
    """The values that a measurement should have; None where a value is not known."""

    source: ExpectedSource
    l0: float | None = None
    explained_variance: float | None = None
    early_l0: float | None = None
    early_explained_variance: float | None = None
    norm: float | None = None
    outliers: float | None = None
    place: str | None = None
    """Hook point of the record; None without a record."""
    kinds: tuple[KindNumbers, ...] = ()
    """What a record has of each kind of text."""
    least: float = WELL
    """Where nothing is expected, the explained variance from which on an experiment counts as right."""

    @property
    def bounds(self) -> Bounds:
        """How far a measurement may deviate, given where these values come from."""
        return BOUNDS[self.source]


@dataclass(frozen=True, slots=True)
class ComparedNumber:
    """One number of a measurement beside its expected value."""

    check: str
    """The check that it belongs to, one of `result.CHECKS`."""
    name: str
    measured: float
    expected: float | None
    off: float
    """Deviation, divided by the one that is allowed; above 1 the check fails."""
    allowed: str
    """The allowed range, in words."""


def expected_of(card: DictionaryCard, record: Record | None, dtype: str) -> Expected:
    """Expected values from the best source there is: the record, else the card, else none."""
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
            found.kinds,
        )
    if card.l0 is not None or card.explained_variance is not None:
        return Expected(ExpectedSource.DECLARED, card.l0, card.explained_variance)
    return Expected(ExpectedSource.NONE)


def compare(
    found: Measurement, expected: Expected, bounds: Bounds | None = None
) -> tuple[ComparedNumber, ...]:
    """Every number of a measurement beside its expected value, within `bounds` or those of its source."""
    bounds = bounds or expected.bounds
    if not found.whole:
        wide = max(bounds.ratio, _SAMPLED)
        return (
            _ratio("l0", "L0", found.l0, expected.l0, wide),
            _ratio("norm", "median norm", found.norm, expected.norm, bounds.ratio),
            _difference("norm", "norm outliers", found.outliers, expected.outliers, bounds.outliers),
        )
    return (
        *_overall(found, expected, bounds),
        *_by_kind(found, expected, bounds),
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


def _overall(found: Measurement, expected: Expected, bounds: Bounds) -> tuple[ComparedNumber, ...]:
    """L0 and explained variance of all texts.

    Declared values are of texts of a kind that nobody knows, such as dialogue alone. So they are compared with those of
    all texts, and within closer bounds with those of each kind; what comes nearest counts, both numbers together.
    """
    whole = _both(KindNumbers("", found.l0, found.explained_variance), expected, bounds)
    if expected.source is not ExpectedSource.DECLARED:
        return whole
    close = Bounds(min(bounds.ratio, _KIND.ratio), min(bounds.variance, _KIND.variance))
    kinds = (_both(numbers, expected, close) for numbers in found.kinds)
    return min((whole, *kinds), key=distance)


def _both(numbers: KindNumbers, expected: Expected, bounds: Bounds) -> tuple[ComparedNumber, ...]:
    name = f", {numbers.kind}" if numbers.kind else ""
    return (
        _ratio("l0", f"L0{name}", numbers.l0, expected.l0, bounds.ratio),
        _difference(
            "variance",
            f"explained variance{name}",
            numbers.explained_variance,
            expected.explained_variance,
            bounds.variance,
        ),
    )


def _by_kind(found: Measurement, expected: Expected, bounds: Bounds) -> list[ComparedNumber]:
    """Both numbers of each kind of text that a record has."""
    here = {numbers.kind: numbers for numbers in found.kinds}
    lines: list[ComparedNumber] = []
    for known in expected.kinds:
        if (mine := here.get(known.kind)) is not None:
            lines.append(_ratio("l0", f"L0, {known.kind}", mine.l0, known.l0, bounds.early_ratio))
            lines.append(
                _difference(
                    "variance",
                    f"explained variance, {known.kind}",
                    mine.explained_variance,
                    known.explained_variance,
                    bounds.early_variance,
                )
            )
    return lines


def far(found: Measurement, expected: Expected) -> float:
    """Greatest deviation of a measurement, divided by the one that is allowed, for ranking possible causes.

    Values from the card have closer bounds here than in the self-test. A result of at most 1 means that the measurement
    matches the expected values; where there are none, that it explains the variance well.
    """
    if expected.source is ExpectedSource.NONE:
        return _or_infinite(max(1 - found.explained_variance, 0.0) / (1 - expected.least))
    declared = expected.source is ExpectedSource.DECLARED
    return distance(compare(found, expected, _CLOSE if declared else None))


def distance(lines: tuple[ComparedNumber, ...]) -> float:
    """Greatest deviation among the numbers, divided by the one that is allowed; 0 where nothing is expected."""
    return max((line.off for line in lines if line.expected is not None), default=0.0)


def _ratio(check: str, name: str, found: float, expected: float | None, bound: float) -> ComparedNumber:
    if expected is None or math.isinf(bound):
        return ComparedNumber(check, name, found, expected, 0.0, "")
    off = abs(math.log(max(found, 1e-9) / max(expected, 1e-9))) / math.log(bound)
    return ComparedNumber(
        check, name, found, expected, _or_infinite(off), f"{expected / bound:.3g} to {expected * bound:.3g}"
    )


def _difference(check: str, name: str, found: float, expected: float | None, bound: float) -> ComparedNumber:
    if expected is None or math.isinf(bound):
        return ComparedNumber(check, name, found, expected, 0.0, "")
    off = abs(found - expected) / bound
    return ComparedNumber(
        check, name, found, expected, _or_infinite(off), f"{expected - bound:.3f} to {expected + bound:.3f}"
    )


def _or_infinite(off: float) -> float:
    """The deviation, or infinity where it is NaN, so that NaN never passes a check."""
    return off if math.isfinite(off) else math.inf
