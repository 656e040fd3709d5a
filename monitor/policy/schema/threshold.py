"""Thresholds as they are written: a number, one number for each length, or a false-positive rate to be fitted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, Tag

from monitor.policy.schema.base import Strict, refuse


class AskedRate(Strict):
    """Asks `policy fit` to set the threshold so that at most a given share of benign texts fires."""

    false_positive_rate: Annotated[float, Field(gt=0, le=0.5)]
    """The share of benign texts that may fire, such as 0.01 for one in a hundred."""


class LengthThreshold(Strict):
    """The threshold for one range of lengths."""

    up_to: Annotated[int, Field(ge=1, le=2**31)] | None
    """The threshold holds up to this token of the phase, counted from 1; write `null` in the last entry."""
    threshold: float
    """The pooled score at which the rule fires there."""


def _growing(buckets: list[LengthThreshold]) -> list[LengthThreshold]:
    last = 0
    for i, bucket in enumerate(buckets):
        if bucket.up_to is None:
            if i != len(buckets) - 1:
                raise refuse([i, "up_to"], "`up_to: null` belongs to the last length; put it at the end")
        elif bucket.up_to <= last:
            raise refuse([i, "up_to"], f"lengths must grow; {bucket.up_to} does not come after {last}")
        else:
            last = bucket.up_to
    if buckets[-1].up_to is not None:
        raise refuse([len(buckets) - 1, "up_to"], "the last length has no limit: write `up_to: null` there")
    return buckets


LengthThresholds = Annotated[
    list[LengthThreshold], Field(min_length=1, max_length=32), AfterValidator(_growing)
]


def _shape(value: Any) -> str:
    if isinstance(value, list):
        return "lengths"
    return "rate" if isinstance(value, dict | AskedRate) else "number"


ThresholdField = Annotated[
    Annotated[float, Tag("number")]
    | Annotated[AskedRate, Tag("rate")]
    | Annotated[LengthThresholds, Tag("lengths")],
    Discriminator(_shape),
]
"""A threshold in a policy file."""

FixedThreshold = Annotated[
    Annotated[float, Tag("number")] | Annotated[LengthThresholds, Tag("lengths")], Discriminator(_shape)
]
"""A threshold in a lock."""


def thresholds_by_length(
    threshold: float | Sequence[LengthThreshold],
) -> tuple[tuple[int | None, float], ...]:
    """A threshold as pairs of (last token, threshold) in growing order; the last pair has None as its last token."""
    if isinstance(threshold, int | float):
        return ((None, float(threshold)),)
    return tuple((bucket.up_to, bucket.threshold) for bucket in threshold)


def threshold_at(threshold: float | Sequence[LengthThreshold], tokens: int) -> float:
    """The threshold that holds at the `tokens`-th token of a phase, counted from 1."""
    pairs = thresholds_by_length(threshold)
    return next(value for up_to, value in pairs if up_to is None or tokens <= up_to)
