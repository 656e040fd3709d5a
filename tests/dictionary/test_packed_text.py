"""Packed rows: no token is lost, every row begins as a text, and positions count from where a document begins."""

import itertools

import pytest

from monitor.dictionary.packed_text import PackedText, batches, pack
from monitor.errors import ConfigurationError


def spell(texts):
    return [[ord(c) for c in text] for text in texts]


TEXTS = ["abc", "defghij", "k", "lmnopqrstu"]


@pytest.mark.parametrize("start", [(0,), (0, 1)])
def test_packing_loses_nothing_and_knows_the_documents(start):
    rows = list(pack(TEXTS, spell, 6, start))
    ids = [token for row in rows for token in row.ids.tolist() if token > 1]
    assert "".join(map(chr, ids)) == "".join(TEXTS)[: len(ids)]
    assert all(tuple(row.ids[: len(start)].tolist()) == start for row in rows)
    for row in rows:
        for token, document in zip(row.ids.tolist(), row.documents.tolist(), strict=True):
            assert token <= 1 or chr(token) in TEXTS[document]


def test_a_start_token_begins_documents_and_rows_once():
    rows = list(pack(TEXTS, spell, 6, (0,)))
    assert [row.documents[row.ids == 0].tolist() for row in rows] == [[0, 1], [1], [1, 2, 3], [3]]
    assert not any((row.ids[1:-1] == 0).logical_and(row.ids[2:] == 0).any() for row in rows)


def test_without_a_start_token_none_is_added():
    assert [row.ids.tolist() for row in pack(["ab", "cd"], spell, 2)] == [[97, 98], [99, 100]]


def test_an_endless_text_is_read_as_it_is_asked_for():
    rows = itertools.islice(pack(itertools.cycle(TEXTS), spell, 6, (0,)), 50)
    assert len(list(rows)) == 50


def test_positions_count_from_the_beginning_of_a_document_or_a_row():
    row, *_ = pack(["ab", "cde", "f" * 20], spell, 8, (0,))
    assert row.positions.tolist() == [0, 1, 2, 0, 1, 2, 3, 0]
    both = PackedText.stacked(list(pack(["ab", "cde", "f" * 20], spell, 8, (0,))))
    assert both.positions.tolist()[1:] == [list(range(8)), list(range(8))]


def test_batches_hold_rows_in_order():
    rows = list(pack(["x" * 50], spell, 5))
    found = list(batches(rows, 4))
    assert [batch.ids.shape[0] for batch in found] == [4, 4, 2]
    assert all(batch.tokens == batch.ids.numel() for batch in found)


def test_rows_without_room_for_a_token_are_refused():
    with pytest.raises(ConfigurationError, match="nothing but the start"):
        next(pack(TEXTS, spell, 2, (0, 1)))
