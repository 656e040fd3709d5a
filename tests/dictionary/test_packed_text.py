"""Packed rows: no token is lost, every row begins as a text, and positions count from where a document begins."""

import itertools
from functools import partial

import pytest

from monitor.dictionary.packed_text import (
    PackedText,
    batches,
    characters_of,
    document_of,
    pack,
    shortened,
)
from monitor.errors import ConfigurationError


def spell(texts, start=()):
    return [[*start, *(ord(c) for c in text)] for text in texts]


def packed(texts, length, start=()):
    return pack(texts, partial(spell, start=start), length, start)


TEXTS = ["abc", "defghij", "k", "lmnopqrstu"]


@pytest.mark.parametrize("start", [(0,), (0, 1)])
def test_packing_loses_nothing_and_knows_the_documents(start):
    rows = list(packed(TEXTS, 6, start))
    ids = [token for row in rows for token in row.ids.tolist() if token > 1]
    assert "".join(map(chr, ids)) == "".join(TEXTS)[: len(ids)]
    assert all(tuple(row.ids[: len(start)].tolist()) == start for row in rows)
    for row in rows:
        for token, document in zip(row.ids.tolist(), row.documents.tolist(), strict=True):
            assert token <= 1 or chr(token) in TEXTS[document]


def test_a_start_token_begins_documents_and_rows_once():
    rows = list(packed(TEXTS, 6, (0,)))
    assert [row.documents[row.ids == 0].tolist() for row in rows] == [[0, 1], [1], [1, 2, 3], [3]]
    assert not any((row.ids[1:-1] == 0).logical_and(row.ids[2:] == 0).any() for row in rows)


def test_without_a_start_token_none_is_added():
    assert [row.ids.tolist() for row in packed(["ab", "cd"], 2)] == [[97, 98], [99, 100]]


def test_an_endless_text_is_read_as_it_is_asked_for():
    rows = itertools.islice(packed(itertools.cycle(TEXTS), 6, (0,)), 50)
    assert len(list(rows)) == 50


def test_positions_count_from_the_beginning_of_a_document_or_a_row():
    row, *_ = packed(["ab", "cde", "f" * 20], 8, (0,))
    assert row.positions.tolist() == [0, 1, 2, 0, 1, 2, 3, 0]
    both = PackedText.stacked(list(packed(["ab", "cde", "f" * 20], 8, (0,))))
    assert both.positions.tolist()[1:] == [list(range(8)), list(range(8))]


def test_batches_hold_rows_in_order():
    rows = list(packed(["x" * 50], 5))
    found = list(batches(rows, 4))
    assert [batch.ids.shape[0] for batch in found] == [4, 4, 2]
    assert all(batch.tokens == batch.ids.numel() for batch in found)


def test_rows_without_room_for_a_token_are_refused():
    with pytest.raises(ConfigurationError, match="nothing but the start"):
        next(packed(TEXTS, 2, (0, 1)))


TALK = ({"role": "user", "content": "abc"}, {"role": "assistant", "content": "defg"})


def test_a_row_begins_a_document_as_its_tokens_do_and_goes_on_with_the_start():
    """A conversation begins as its template says, which may be otherwise than a text."""
    rows = list(pack(["x", "y"], lambda texts: [[7, 7, 7, 7, 7] for _ in texts], 4, (0,)))
    assert [row.ids.tolist() for row in rows] == [[7, 7, 7, 7], [0, 7, 7, 7], [0, 7, 7, 7]]


def test_documents_are_texts_or_conversations():
    assert document_of({"text": "abc", "messages": "no"}) == "abc"
    found = document_of({"messages": [{"role": "user", "content": "abc", "name": "x"}]})
    assert found == ({"role": "user", "content": "abc"},)
    assert (characters_of("abc"), characters_of(TALK)) == (3, 7)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({}, "write"),
        ([], "write"),
        ({"text": 1}, "write"),
        ({"text": "\ud800"}, "surrogate"),
        ({"messages": []}, "not a list of messages"),
        ({"messages": "x"}, "not a list of messages"),
        ({"messages": [{"role": "user"}]}, "lacks"),
        ({"messages": [{"role": "user", "content": ""}]}, "lacks"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "surrogate"),
    ],
)
def test_what_is_no_document_is_said(record, said):
    with pytest.raises(ValueError, match=said):
        document_of(record)


def test_the_beginning_of_a_document():
    assert shortened("abcdef", 4) == "abcd"
    assert shortened(TALK, 100) == TALK
    assert shortened(TALK, 5) == TALK[:1]
    assert shortened(TALK, 2) == ({"role": "user", "content": "ab"},)
