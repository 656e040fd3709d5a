"""How the scores of tokens become one number: the settings, as they stand in policy files and locks.

Knows names, defaults and limits. The arithmetic is in `pooling`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from monitor.policy.schema.base import Strict


class Max(Strict):
    """The token's own score."""

    kind: Literal["max"] = "max"


class Mean(Strict):
    """Sum of the scores so far, divided by max(tokens so far, min_tokens)."""

    kind: Literal["mean"] = "mean"
    min_tokens: Annotated[int, Field(ge=1, le=4096)] = 8
    """Fewer tokens than this count as if the rest had scored zero."""


class TopKMean(Strict):
    """Mean of the k largest positive scores so far; tokens that are missing count as zero."""

    kind: Literal["top_k_mean"] = "top_k_mean"
    k: Annotated[int, Field(ge=1, le=256)] = 4


class Ema(Strict):
    """Exponential moving average, starting at zero: e ← e + (1 − 2^(−1/half_life)) · (score − e)."""

    kind: Literal["ema"] = "ema"
    half_life: Annotated[float, Field(gt=0, le=4096)] = 8.0
    """Tokens after which a score counts half."""


class LongestRun(Strict):
    """How many tokens in a row have scored at least `level`; the threshold is a number of tokens."""

    kind: Literal["longest_run"] = "longest_run"
    level: float


class Cumulative(Strict):
    """A sum that never falls below zero: c ← max(0, c + score − allowance) (Page's CUSUM, 1954)."""

    kind: Literal["cumulative"] = "cumulative"
    allowance: Annotated[float, Field(ge=0)] = 0.0
    """What a token may score without being held against the text."""


AnyPooling = Max | Mean | TopKMean | Ema | LongestRun | Cumulative


def _shape(value: Any) -> str:
    return "name" if isinstance(value, str) else "settings"


PoolingModel = Annotated[AnyPooling, Field(discriminator="kind")]
PoolingName = Literal["max", "mean", "top_k_mean", "ema", "cumulative"]
PoolingField = Annotated[
    Annotated[PoolingName, Tag("name")] | Annotated[PoolingModel, Tag("settings")], Discriminator(_shape)
]


def pooling_of(value: str | AnyPooling) -> AnyPooling:
    """The settings that a pooling's name stands for; settings come back as they are."""
    named = {"max": Max, "mean": Mean, "top_k_mean": TopKMean, "ema": Ema, "cumulative": Cumulative}
    return named[value]() if isinstance(value, str) else value
