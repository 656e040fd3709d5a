from __future__ import annotations

import lzma

import pytest

from monitor.dictionary.cards import card_file
from monitor.errors import DictionaryError, NotFound
from tests.dictionary.small_dictionary import (
    FEATURES,
)


def _save(folder, made_cards):
    header = card_file.CardsHeader(FEATURES, "sha256:m", "sha256:d", "a corpus", 400)
    card_file.save(folder, header, made_cards)
    return header


def test_saved_cards_read_back_the_same(tmp_path, made):
    header = _save(tmp_path, made[1])
    assert card_file.load_header(tmp_path) == header
    assert list(card_file.load_cards(tmp_path)) == made[1]
    assert [card_file.load_card(tmp_path, i) for i in range(FEATURES)] == made[1]


def test_missing_features_and_files_are_named(tmp_path, made):
    with pytest.raises(DictionaryError, match="dictionary describe"):
        card_file.load_card(tmp_path, 0)
    _save(tmp_path, made[1])
    with pytest.raises(NotFound, match="features 0 to 11"):
        card_file.load_card(tmp_path, FEATURES)
    with pytest.raises(NotFound, match="features 0 to 11"):
        card_file.load_card(tmp_path, -1)


def test_files_that_are_no_cards_are_refused(tmp_path, made):
    path = tmp_path / card_file.FILE
    for content in (
        b"plain text",
        lzma.compress(b""),
        lzma.compress(b'{"format":"other"}\n'),
        lzma.compress(b"[1]\n"),
    ):
        path.write_bytes(content)
        with pytest.raises(DictionaryError, match="dictionary describe"):
            card_file.load_header(tmp_path)
    _save(tmp_path, made[1][:5])
    with pytest.raises(DictionaryError, match="ends before feature 7"):
        card_file.load_card(tmp_path, 7)
