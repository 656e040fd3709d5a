"""Cards at hand one by one."""

import lzma

import pytest

from monitor.dictionary.cards import card_file
from monitor.dictionary.cards.card_index import CardIndex
from monitor.errors import DictionaryError, NotFound
from tests.dictionary.small_dictionary import FEATURES


@pytest.fixture
def index(tmp_path, made):
    card_file.save(
        tmp_path, card_file.CardsHeader(FEATURES, "sha256:m", "sha256:d", "a corpus", 400), made[1]
    )
    found = CardIndex(tmp_path)
    yield found
    found.close()


def test_cards_are_those_of_the_file_in_any_order(index, made):
    assert (len(index), index.header.dictionary_digest) == (FEATURES, "sha256:d")
    for feature in (FEATURES - 1, 0, 5, 0):
        assert index.card(feature) == made[1][feature]
    assert index.promoted[5] == tuple(text for text, _ in made[1][5].promoted)


def test_features_that_are_not_there_are_named(index):
    for feature in (-1, FEATURES):
        with pytest.raises(NotFound, match=f"feature {feature} does not exist"):
            index.card(feature)


def test_words_are_found_across_tokens_and_in_any_case(index, made):
    context = next(card.contexts[0] for card in made[1] if card.contexts)
    words = "".join(context.tokens)
    assert made[1].index(next(card for card in made[1] if card.contexts)) in list(
        index.with_text(words.upper())
    )
    assert list(index.with_text("no such words anywhere")) == []


def test_a_folder_without_cards_is_refused(tmp_path):
    with pytest.raises(DictionaryError, match="no feature cards"):
        CardIndex(tmp_path)


def test_a_line_that_is_no_card_is_told(tmp_path):
    card_file.save(tmp_path, card_file.CardsHeader(1, "sha256:m", "sha256:d", "a corpus", 400), ())
    path = tmp_path / card_file.FILE
    path.write_bytes(path.read_bytes() + lzma.compress(b'{"feature": 0}\n'))
    with pytest.raises(DictionaryError, match="no card"):
        CardIndex(tmp_path)
