"""Edits that two ranks share, with a sum over two threads; and what is noticed where one of them goes wrong."""

import threading

import numpy as np
import pytest
import torch

from monitor.vllm.gate import PassPart
from monitor.vllm.shared_edits import SharedEdits, StreamPrints, mark_of
from tests.children import four_at_once

ROWS, WIDTH = 6, 16


class Sum:
    """A sum over two ranks, each on a thread of its own."""

    def __init__(self):
        self._given, self._all = [], threading.Barrier(2, timeout=30)

    def __call__(self, x):
        self._given.append(x)
        self._all.wait()
        return self._given[0] + self._given[1]


def stream():
    return torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(3)) * 5


def two_ranks(dtype=torch.float32, spoil=lambda x: x):
    """What the first rank and the other one have after a pass in which rows 1 and 4 are clamped; and their prints."""
    total, found = Sum(), {}
    x = stream().to(dtype)
    edited = torch.zeros(ROWS, 1, dtype=torch.bool)
    edited[[1, 4]] = True
    mine = (torch.where(edited, x * 0.3 + 1, 123.0).to(dtype), edited)

    def rank(name, given):
        shared = SharedEdits(total, static=False)
        shared.begin(ROWS, clamping=True)
        clamped, which = shared.share(x, given)
        after = torch.where(which, clamped, x)
        if given is None:
            after = spoil(after)
        shared.note(after)
        found[name] = after, shared.end()

    threads = [threading.Thread(target=rank, args=one) for one in (("first", mine), ("other", None))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return x, mine, found["first"], found["other"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_ranks_have_the_same_bits_and_other_rows_keep_theirs(dtype):
    x, (clamped, edited), (first, mine), (other, its) = two_ranks(dtype)
    assert torch.equal(first, other)
    assert torch.equal(first, torch.where(edited, clamped, x))
    assert mine.edited.tolist() == its.edited.tolist() == edited.squeeze(-1).tolist()
    assert mine.why_apart(its) == ""


def scaled(row, factor):
    def spoil(x):
        x = x.clone()
        x[row] *= factor
        return x

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [scaled(1, 1.01), scaled(0, -1.0), scaled(4, float("nan")), lambda x: x[[0, 1, 3, 2, 4, 5]]],
    ids=["a wrong edit", "a row that was none to edit", "no numbers", "rows in another order"],
)
def test_a_rank_that_has_another_stream_is_noticed(spoil):
    *_, (_, mine), (_, its) = two_ranks(spoil=spoil)
    assert "another residual stream" in mine.why_apart(its)


def test_other_rows_or_fewer_are_noticed():
    prints = np.ones((ROWS, 4), np.float32)
    some, others = np.arange(ROWS) < 2, np.arange(ROWS) < 3
    assert "edited 3 rows and not 2" in StreamPrints(prints, some).why_apart(StreamPrints(prints, others))
    assert "or others" in StreamPrints(prints, some).why_apart(StreamPrints(prints, some[::-1]))
    assert "ran 5 rows and not 6" in StreamPrints(prints, some).why_apart(StreamPrints(prints[1:], some[1:]))


def test_where_the_first_rank_has_no_numbers_its_readings_say_so():
    nothing = np.full((ROWS, 4), np.nan, np.float32)
    some = np.zeros(ROWS, bool)
    assert StreamPrints(nothing, some).why_apart(StreamPrints(nothing, some)) == ""


def test_a_tap_that_did_not_run_on_one_rank_is_noticed():
    ran, missed = (SharedEdits(lambda x: x, static=False) for _ in range(2))
    for shared in (ran, missed):
        shared.begin(ROWS, clamping=False)
        shared.note(stream())
        shared.end()
        shared.begin(ROWS, clamping=False)
    ran.note(stream())
    assert "another residual stream in 6 rows" in ran.end().why_apart(missed.end())


def test_passes_without_clamps_share_nothing():
    shared = SharedEdits(pytest.fail, static=False)
    assert not shared.sharing
    shared.begin(ROWS, clamping=False)
    assert not shared.sharing
    shared.begin(ROWS, clamping=True)
    assert shared.sharing
    shared.note(stream())
    assert shared.end() is not None
    assert not shared.sharing
    assert shared.end() is None, "there was no further pass"
    assert SharedEdits(pytest.fail, static=True).sharing, (
        "a captured graph holds the sum whether it clamps or not"
    )


def test_prints_are_the_same_in_every_process():
    found = []

    def take():
        shared = SharedEdits(pytest.fail, static=False)
        shared.begin(ROWS, clamping=False)
        shared.note(stream())
        found.append(shared.end().rows)

    four_at_once(take)
    assert all((rows == found[0]).all() for rows in found)


def test_a_mark_says_whose_tokens_where_and_which():
    parts = [PassPart("a", 2, 0), PassPart("b", 1, 7)]
    marks = {
        mark_of(parts, [1, 2, 3]),
        mark_of(parts, [1, 2, 4]),
        mark_of(parts[::-1], [1, 2, 3]),
        mark_of([PassPart("a", 2, 1), parts[1]], [1, 2, 3]),
        mark_of([PassPart("a", 1, 0), PassPart("b", 2, 7)], [1, 2, 3]),
        mark_of([PassPart("c", 2, 0), parts[1]], [1, 2, 3]),
    }
    assert len(marks) == 6
    assert mark_of(list(parts), (1, 2, 3)) in marks
