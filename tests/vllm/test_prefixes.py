"""Rows of blocks: what is kept, what is given, and what is not."""

import numpy as np

from monitor.vllm.prefixes import GrowingBlock, PrefixRows, Run, TapRows

SIZE = 4


def rows(first, count, *, value=1.0):
    ids = tuple(range(first, first + count))
    return TapRows(
        ids, np.full((count, 3), value, np.float32), np.ones((count, 2), np.float32), np.zeros(count, bool)
    )


def test_a_prefix_goes_as_far_as_the_first_block_that_lacks():
    kept = PrefixRows(100, SIZE)
    for number in (0, 1, 3):
        kept.put(bytes([number]), "layout", rows(SIZE * number, SIZE))
    found = kept.first([bytes([number]) for number in range(4)], "layout")
    assert [block.ids[0] for block in found] == [0, SIZE]
    assert kept.first([b"\x00"], "another layout") == []


def test_what_could_not_be_scored_is_not_kept():
    kept = PrefixRows(100, SIZE)
    for number, value in enumerate((np.nan, np.inf, -np.inf)):
        kept.put(bytes([number]), "layout", rows(0, SIZE, value=value))
    kept.put(b"short", "layout", rows(0, SIZE - 1))
    assert len(kept) == 0


def test_the_block_that_was_used_longest_ago_makes_room():
    kept = PrefixRows(0, SIZE)  # 64 at least
    for number in range(64):
        kept.put(bytes([number]), "layout", rows(0, SIZE))
    kept.first([b"\x00"], "layout")
    kept.put(b"new", "layout", rows(0, SIZE))
    assert kept.first([b"\x00"], "layout")
    assert not kept.first([b"\x01"], "layout")


def run(first, count, *, around=0):
    """A sequence's rows in a pass, in which so many rows of others lie on either side."""
    return Run(rows(first - around, count + 2 * around), around, count)


def ids_of(blocks):
    return [(number, block.ids) for number, block in blocks]


def test_blocks_grow_over_passes():
    growing = GrowingBlock(0)
    assert growing.add(0, run(0, 3), "layout", SIZE) == []
    assert ids_of(growing.add(3, run(3, 7), "layout", SIZE)) == [(0, (0, 1, 2, 3)), (1, (4, 5, 6, 7))]
    assert ids_of(growing.add(10, run(10, 2), "layout", SIZE)) == [(2, (8, 9, 10, 11))]


def test_blocks_are_cut_out_of_passes_of_many_requests():
    growing = GrowingBlock(0)
    for position in range(0, 6, 2):
        found = growing.add(position, run(position, 2, around=5), "layout", SIZE)
        assert ids_of(found) == ([(0, (0, 1, 2, 3))] if position == 2 else [])
    assert ids_of(growing.add(6, run(6, 2, around=9), "layout", SIZE)) == [(1, (4, 5, 6, 7))]


def test_rows_alone_hold_nothing_of_the_pass():
    pass_rows = rows(0, 9)
    alone = Run(pass_rows, 3, 2).alone()
    assert alone.cut().ids == (3, 4)
    assert not np.shares_memory(alone.rows.readings, pass_rows.readings)
    assert np.shares_memory(Run(pass_rows, 3, 2).cut().readings, pass_rows.readings)


def test_what_does_not_follow_begins_at_the_next_block():
    growing = GrowingBlock(0)
    growing.add(0, run(0, 3), "layout", SIZE)
    assert growing.add(5, run(5, 4), "layout", SIZE) == []
    assert ids_of(growing.add(9, run(9, 4), "layout", SIZE)) == [(2, (8, 9, 10, 11))]


def test_what_ends_before_the_next_block_is_left_out():
    growing = GrowingBlock(0)
    assert growing.add(5, run(5, 2), "layout", SIZE) == []
    assert growing.add(7, run(7, 2), "layout", SIZE) == []
    assert ids_of(growing.add(9, run(9, 3), "layout", SIZE)) == [(2, (8, 9, 10, 11))]


def test_other_columns_begin_anew():
    growing = GrowingBlock(0)
    growing.add(0, run(0, 3), "layout", SIZE)
    assert growing.add(3, run(3, 1), "another", SIZE) == []
    assert ids_of(growing.add(4, run(4, 4), "another", SIZE)) == [(1, (4, 5, 6, 7))]


def test_parts_are_joined_as_they_were():
    whole = TapRows.joined([rows(0, 3), rows(3, 2, value=2.0)])
    assert whole.ids == (0, 1, 2, 3, 4)
    assert whole.part(2, 5).readings[:, 0].tolist() == [1.0, 2.0, 2.0]
