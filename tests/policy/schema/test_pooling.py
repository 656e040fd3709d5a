"""Poolings as they are written: by name or with settings."""

import pytest
from pydantic import TypeAdapter, ValidationError

from monitor.policy.schema.pooling import (
    Cumulative,
    Ema,
    LongestRun,
    Max,
    Mean,
    PoolingField,
    TopKMean,
    pooling_of,
)

READ = TypeAdapter(PoolingField)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("max", Max()),
        ("mean", Mean(min_tokens=8)),
        ("top_k_mean", TopKMean(k=4)),
        ("ema", Ema(half_life=8.0)),
        ("cumulative", Cumulative(allowance=0.0)),
        ({"kind": "ema", "half_life": 2.5}, Ema(half_life=2.5)),
        ({"kind": "longest_run", "level": -0.5}, LongestRun(level=-0.5)),
        ({"kind": "top_k_mean", "k": 256}, TopKMean(k=256)),
    ],
)
def test_names_stand_for_their_defaults(written, meant):
    assert pooling_of(READ.validate_python(written)) == meant


@pytest.mark.parametrize(
    "written",
    [
        "longest_run",
        "median",
        {"kind": "median"},
        {"half_life": 3},
        {"kind": "ema", "half_life": 0},
        {"kind": "ema", "k": 3},
        {"kind": "top_k_mean", "k": 257},
        {"kind": "mean", "min_tokens": 0},
        {"kind": "cumulative", "allowance": -0.1},
        {"kind": "longest_run"},
        {"kind": "max", "k": 1},
        3,
    ],
)
def test_what_is_no_pooling(written):
    with pytest.raises(ValidationError):
        READ.validate_python(written)
