"""Tests of whether something stayed the same, moved, or cannot be told.

That a difference is not significant shows nothing: with few texts hardly any is. Sameness is shown by two one-sided
tests (Schuirmann, 1987): the whole interval must lie within a margin. Each test is at 5 %, so all intervals here are
of 90 %. Where sameness is not shown, and the interval leaves out zero, something has moved. Where it holds zero, the
texts are too few, and `SamenessTest` says how many more would probably do.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import beta

from monitor.policy.fit.readings import Floats, Indices

TAIL = 0.05
"""The level of each one-sided test. Intervals leave so much out at either end."""
MOST = 200
"""A number of texts more than so many times those at hand is not stated."""

TextKind = Literal["positive", "benign"]
"""Which texts a test needs more of: positive examples or benign texts."""


class Sameness(enum.StrEnum):
    """What a test of equivalence came to."""

    SAME = "same"
    """The interval lies within the margin."""
    MOVED = "moved"
    """The interval reaches beyond the margin and leaves out zero."""
    UNKNOWN = "unknown"
    """The interval reaches beyond the margin and holds zero."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 90 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class SamenessTest:
    """One test: what was measured then and now, how far it may move, and what came of it."""

    name: str
    """What is measured: `false_positives`, `caught`, `score_shift`, `held_out_auroc`, `auroc` or
    `recall`."""
    then: float | None
    """The value that is compared with; None where only the change has a meaning."""
    now: Estimate | None
    """The value now; None where only the change has a meaning."""
    change: Estimate | None
    """Now less then, text by text; None where each text cannot be compared with itself."""
    margin: float
    """How far it may move."""
    found: Sameness
    kind: TextKind
    """The texts that the interval depends on."""
    texts: int
    """How many of these there were."""
    more: int | None = None
    """How many more of them would probably decide; 0 where it is decided, None where no sensible number would."""


def within(change: Estimate, margin: float) -> Sameness:
    """Whether a change lies within `margin` on either side of zero."""
    if -margin < change.low and change.high < margin:
        return Sameness.SAME
    return Sameness.MOVED if change.high < 0 or change.low > 0 else Sameness.UNKNOWN


def no_rise(change: Estimate, margin: float) -> Sameness:
    """Whether a change is no rise by `margin` or more; falls do not count."""
    if change.high < margin:
        return Sameness.SAME
    return Sameness.MOVED if change.low > 0 else Sameness.UNKNOWN


def no_fall(change: Estimate, margin: float) -> Sameness:
    """Whether a change is no fall by `margin` or more; rises do not count."""
    return no_rise(Estimate(-change.value, -change.high, -change.low), margin)


def share(count: float, texts: float) -> Estimate:
    """A share of independent texts with its exact interval (Clopper and Pearson, 1934); neither need be whole."""
    if texts <= 0:
        return Estimate(0.0, 0.0, 1.0)
    low = float(beta.ppf(TAIL, count, texts - count + 1)) if count > 0 else 0.0
    high = float(beta.ppf(1 - TAIL, count + 1, texts - count)) if count < texts else 1.0
    return Estimate(count / texts, low, high)


def change_of_shares(gained: float, lost: float, texts: float) -> Estimate:
    """The change of a share of the same independent texts, of which `gained` came in and `lost` fell out.

    The two intervals are put together by squaring and adding (Newcombe, 1998).
    """
    up, down = share(gained, texts), share(lost, texts)
    value = up.value - down.value
    low = value - math.hypot(up.value - up.low, down.high - down.value)
    high = value + math.hypot(up.high - up.value, down.value - down.low)
    return Estimate(value, max(low, -1.0), min(high, 1.0))


def drawn(value: float, draws: Floats) -> Estimate:
    """A number with the interval of its resamples `[resamples]`, which always holds the number itself."""
    low, high = np.quantile(draws, (TAIL, 1 - TAIL))
    return Estimate(value, min(float(low), value), max(float(high), value))


def independent(groups: Indices) -> int:
    """How many independent texts there are: texts of one group count as one."""
    return len(np.unique(groups))


def more_texts(texts: int, decides: Callable[[float], Sameness]) -> int | None:
    """How many more texts would probably decide a test; None for more than `MOST` times as many.

    `decides` makes the test as if there were so many times the texts, and all else in proportion.
    """
    times = 1.0
    while decides(times) is Sameness.UNKNOWN:
        times *= 1.05
        if times > MOST:
            return None
    return max(0, math.ceil(texts * times) - texts)


def more_for_draws(texts: int, change: Estimate, decides: Callable[[Estimate], Sameness]) -> int | None:
    """How many more texts would probably decide a test of a change, whose interval narrows with the square root."""

    def narrowed(times: float) -> Sameness:
        by = 1 / math.sqrt(times)
        low, high = (change.value + (end - change.value) * by for end in (change.low, change.high))
        return decides(Estimate(change.value, low, high))

    return more_texts(texts, narrowed)
