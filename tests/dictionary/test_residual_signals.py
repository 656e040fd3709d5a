"""Which tokens are attention sinks, and the limit that a model's texts show."""

import math

import pytest
import torch

from monitor.dictionary.residual_signals import norm_limit, outlying, sinks


def residuals(*norms):
    return torch.tensor(norms)[:, None] * torch.nn.functional.normalize(torch.ones(len(norms), 16), dim=-1)


def test_first_tokens_and_outlying_norms_are_sinks_whatever_the_tokens_are():
    x, positions = residuals(5.0, 5.0, 99.0, 101.0, 5.0), torch.tensor([0, 1, 2, 3, 0])
    assert sinks(x, positions, 100.0).tolist() == [True, False, False, True, True]
    assert sinks(x[None], positions[None], math.inf).tolist() == [[True, False, False, False, True]]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_not_passed_over_as_a_sink(value):
    x = residuals(5.0, 5.0)
    x[1, 3] = value
    assert not outlying(x, 100.0).any()
    assert sinks(x, torch.tensor([0, 1]), 100.0).tolist() == [True, False]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_norms_are_taken_in_float32_or_more(dtype):
    """Squares of a sink's residual overflow float16, and its norm would look infinite."""
    x = torch.full((1, 512), 1000.0, dtype=dtype)
    assert bool(outlying(x, 20_000.0))
    assert not bool(outlying(x, 23_000.0))


def test_the_limit_is_ten_times_the_median_without_first_tokens_and_rounded():
    x, positions = residuals(9000.0, 172.0, 174.0, 173.4, 9000.0, math.inf), torch.tensor([0, 1, 2, 3, 0, 1])
    assert norm_limit(x, positions) == 1700.0
    assert norm_limit(1.003 * x, positions) == 1700.0
    assert norm_limit(x * math.nan, positions) == math.inf
