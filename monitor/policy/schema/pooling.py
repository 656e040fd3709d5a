"""How the scores of tokens become one number: the poolings as they are written in policy files and locks.

The formulas of the running rules are in `monitor.policy.rules.pooling`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from monitor.policy.schema.base import Strict


class Max(Strict):
    """After each token: the token's own score."""

    kind: Literal["max"] = "max"


class Mean(Strict):
    """After each token: the sum of the scores so far, divided by max(tokens so far, min_tokens)."""

    kind: Literal["mean"] = "mean"
    min_tokens: Annotated[int, Field(ge=1, le=4096)] = 8
    """The least number of tokens to divide by. In a shorter text the missing tokens count as zero."""


class TopKMean(Strict):
    """After each token: the mean of the k largest positive scores so far. Where there are fewer, the rest are zero."""

    kind: Literal["top_k_mean"] = "top_k_mean"
    k: Annotated[int, Field(ge=1, le=256)] = 4
    """How many of the largest scores are averaged."""


class Ema(Strict):
    """After each token: an exponential moving average e, from zero: e ← e + (1 − 2^(−1/half_life)) · (score − e)."""

    kind: Literal["ema"] = "ema"
    half_life: Annotated[float, Field(gt=0, le=4096)] = 8.0
    """After how many tokens a score counts half."""


class LongestRun(Strict):
    """After each token: how many tokens in a row have scored at least `level`. The threshold is a number of tokens."""

    kind: Literal["longest_run"] = "longest_run"
    level: float
    """The score that a token needs to be counted."""


class Cumulative(Strict):
    """After each token: a sum c that never falls below zero, c ← max(0, c + score − allowance) (CUSUM, Page 1954)."""

    kind: Literal["cumulative"] = "cumulative"
    allowance: Annotated[float, Field(ge=0)] = 0.0
    """What a token may score without adding to the sum. Lower scores reduce it."""


AnyPooling = Max | Mean | TopKMean | Ema | LongestRun | Cumulative


def _shape(value: Any) -> str:
    return "name" if isinstance(value, str) else "settings"


PoolingModel = Annotated[AnyPooling, Field(discriminator="kind")]
PoolingName = Literal["max", "mean", "top_k_mean", "ema", "cumulative"]
PoolingField = Annotated[
    Annotated[PoolingName, Tag("name")] | Annotated[PoolingModel, Tag("settings")], Discriminator(_shape)
]


def pooling_of(value: str | AnyPooling) -> AnyPooling:
    """The settings of a pooling: the defaults where it is written as a name, else the settings as they are."""
    named = {"max": Max, "mean": Mean, "top_k_mean": TopKMean, "ema": Ema, "cumulative": Cumulative}
    return named[value]() if isinstance(value, str) else value
