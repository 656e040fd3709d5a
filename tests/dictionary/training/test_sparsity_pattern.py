"""Sparse arithmetic against the dense one in float64, on both paths."""

import pytest
import torch

from monitor.dictionary.training.sparsity_pattern import SparsityPattern, find_active

TOKENS, FEATURES, WIDTH = 700, 90, 20


@pytest.fixture(params=["sparse", "dense"])
def path(request, monkeypatch):
    monkeypatch.setattr(
        "monitor.dictionary.training.sparsity_pattern.DENSE_ABOVE", 1.0 if request.param == "sparse" else 0.0
    )


def made(dtype=torch.float64):
    random = torch.Generator().manual_seed(2)
    matrix = torch.randn(TOKENS, FEATURES, generator=random, dtype=torch.float64)
    matrix *= torch.rand(matrix.shape, generator=random) < 0.05
    matrix[10], matrix[:, 7] = 0, 0  # a token without a feature, a feature without a token
    rows, columns = matrix.nonzero(as_tuple=True)
    pattern = SparsityPattern(rows.int(), columns.int(), TOKENS, FEATURES, torch.float64)
    left = torch.randn(TOKENS, WIDTH, generator=random, dtype=torch.float64)
    right = torch.randn(FEATURES, WIDTH, generator=random, dtype=torch.float64)
    return pattern, matrix[rows, columns].to(dtype), matrix, left.to(dtype), right.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_products(path, dtype):
    pattern, values, matrix, left, right = made(dtype)
    close = {"atol": 1e-4, "rtol": 1e-4} if dtype is torch.float32 else {}
    torch.testing.assert_close(
        pattern.sum_over_features(values, right), (matrix @ right.double()).to(dtype), **close
    )
    torch.testing.assert_close(
        pattern.sum_over_tokens(values, left), (matrix.T @ left.double()).to(dtype), **close
    )
    expected = (left.double() @ right.double().T)[matrix != 0].to(dtype)
    torch.testing.assert_close(pattern.dot_products(left, right), expected, **close)
    torch.testing.assert_close(pattern.dot_products(left, right, exact=True), expected, **close)
    torch.testing.assert_close(pattern.per_feature(values), matrix.sum(0).to(dtype), **close)
    torch.testing.assert_close(pattern.to_dense(values), matrix.to(dtype))


def test_where(path):
    pattern, values, matrix, _, right = made()
    fewer, kept = pattern.select(values > 0.5, values)
    torch.testing.assert_close(fewer.sum_over_features(kept, right), (matrix * (matrix > 0.5)) @ right)


def test_nothing_active(path):
    empty = torch.zeros(0, dtype=torch.int32)
    pattern, values = (
        SparsityPattern(empty, empty, TOKENS, FEATURES, torch.float64),
        torch.zeros(0, dtype=torch.float64),
    )
    _, _, _, left, right = made()
    assert pattern.sum_over_features(values, right).abs().max() == 0
    assert pattern.sum_over_tokens(values, left).abs().max() == 0
    assert pattern.dot_products(left, right).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("cutoff", [0.0, 1.5])
def test_scan(dtype, cutoff):
    _, _, _, left, right = made()
    bias = torch.linspace(-1, 1, FEATURES, dtype=torch.float64)
    limits = torch.full((FEATURES,), cutoff, dtype=torch.float64)
    pattern = find_active(left.to(dtype), right.to(dtype), bias.to(dtype), limits.to(dtype))
    found = torch.zeros(TOKENS, FEATURES, dtype=torch.bool)
    found[pattern.rows, pattern.columns] = True
    pre = left @ right.T + bias
    room = 0.15 if dtype is torch.bfloat16 else 1e-4
    assert found[pre > cutoff + room].all()
    assert not found[pre < cutoff - room].any()
    assert (pattern.rows.diff() >= 0).all()
