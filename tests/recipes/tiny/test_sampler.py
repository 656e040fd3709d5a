"""Batches of rows: everything once before anything twice, and resumed as if unbroken."""

import numpy as np
import pytest
import torch

from monitor.recipes.tiny.sampler import RowSampler


def test_sampler_reads_everything_once_before_anything_twice() -> None:
    rows = np.arange(12, dtype=np.uint16).reshape(6, 2)
    drawn = RowSampler({"a": rows}, 0).batch(12, {"a": 1.0})
    for half in (drawn[:6], drawn[6:]):
        assert sorted(half.flatten().tolist()) == list(range(12))


def rows(n: int, first: int = 0) -> np.ndarray:
    return np.arange(first, first + n, dtype=np.uint16).reshape(n, 1)


def test_a_resumed_sampler_draws_what_an_unbroken_one_would_have() -> None:
    corpora = {"a": rows(5), "b": rows(7, 100)}
    mixture = {"a": 0.3, "b": 0.7}
    whole = RowSampler(corpora, 3)
    whole.batch(11, mixture)
    state = whole.state()
    resumed = RowSampler(corpora, 3)
    resumed.restore(state)
    for _ in range(4):
        assert torch.equal(resumed.batch(6, mixture), whole.batch(6, mixture))
    assert resumed.epochs() == whole.epochs()
    with pytest.raises(ValueError, match=r"other corpora than|made from other corpora"):
        RowSampler({"a": rows(5)}, 3).restore(state)


def test_corpora_are_drawn_in_proportion_and_others_not_at_all() -> None:
    sampler = RowSampler({"a": rows(50), "b": rows(50, 100), "c": rows(50, 200)}, 0)
    drawn = sampler.batch(4000, {"a": 1.0, "b": 3.0, "d": 9.0})
    assert drawn.dtype == torch.int64
    assert int((drawn >= 200).sum()) == 0
    assert float((drawn >= 100).double().mean()) == pytest.approx(0.75, abs=0.03)
    assert sampler.epochs()["c"] == 0


def test_nothing_to_draw_from_is_an_error() -> None:
    with pytest.raises(ValueError, match="no corpus has a full row"):
        RowSampler({}, 0)
    with pytest.raises(ValueError, match="none of the corpora at hand: a, b"):
        RowSampler({"b": rows(3), "a": rows(3)}, 0).batch(2, {"c": 1.0})
