"""Rows of blocks: what is kept, what is given, and what is not."""

import numpy as np

from monitor.vllm.prefixes import GrowingBlock, PrefixRows, TapRows

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


def ids_of(blocks):
    return [(number, block.ids) for number, block in blocks]


def test_blocks_grow_over_passes():
    growing = GrowingBlock(0)
    assert growing.add(0, rows(0, 3), "layout", SIZE) == []
    assert ids_of(growing.add(3, rows(3, 7), "layout", SIZE)) == [(0, (0, 1, 2, 3)), (1, (4, 5, 6, 7))]
    assert ids_of(growing.add(10, rows(10, 2), "layout", SIZE)) == [(2, (8, 9, 10, 11))]


def test_what_does_not_follow_begins_at_the_next_block():
    growing = GrowingBlock(0)
    growing.add(0, rows(0, 3), "layout", SIZE)
    assert growing.add(5, rows(5, 4), "layout", SIZE) == []
    assert ids_of(growing.add(9, rows(9, 4), "layout", SIZE)) == [(2, (8, 9, 10, 11))]


def test_other_columns_begin_anew():
    growing = GrowingBlock(0)
    growing.add(0, rows(0, 3), "layout", SIZE)
    assert growing.add(3, rows(3, 1), "another", SIZE) == []
    assert ids_of(growing.add(4, rows(4, 4), "another", SIZE)) == [(1, (4, 5, 6, 7))]


def test_parts_are_joined_as_they_were():
    whole = TapRows.joined([rows(0, 3), rows(3, 2, value=2.0)])
    assert whole.ids == (0, 1, 2, 3, 4)
    assert whole.part(2, 5).readings[:, 0].tolist() == [1.0, 2.0, 2.0]
