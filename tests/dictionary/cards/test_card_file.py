from __future__ import annotations

import lzma
import math

import pytest
import torch

from monitor.dictionary.cards import card_file
from monitor.dictionary.cards.description import DescribeOptions, describe
from monitor.dictionary.cards.detokenizer import Detokenizer
from monitor.dictionary.cards.feature_cards import make_cards
from monitor.dictionary.cards.logit_lens import Unembedding
from monitor.dictionary.packed_text import PackedText
from monitor.errors import DictionaryError, NotFound
from tests.dictionary.small_dictionary import (
    BOS,
    FEATURES,
    VOCABULARY,
    WIDTH,
    residuals_of,
    small_autoencoder,
    small_rows,
)


def _spelt(ids):
    return "".join(f" w{token}" for token in ids)


@pytest.fixture
def made():
    found = describe(small_rows(30, 16), residuals_of, small_autoencoder(), DescribeOptions(math.inf, keep=3))
    head = torch.randn(VOCABULARY, WIDTH, generator=torch.Generator().manual_seed(2))
    unembedding = Unembedding(norm=lambda x: x, head=lambda x: x @ head.T)
    return found, list(make_cards(found, small_autoencoder(), unembedding, Detokenizer(_spelt), start=(BOS,)))


def _save(folder, made_cards):
    header = card_file.CardsHeader(FEATURES, "sha256:m", "sha256:d", "a corpus", 400)
    card_file.save(folder, header, made_cards)
    return header


def test_saved_cards_read_back_the_same(tmp_path, made):
    header = _save(tmp_path, made[1])
    assert card_file.load_header(tmp_path) == header
    assert list(card_file.load_cards(tmp_path)) == made[1]
    assert [card_file.load_card(tmp_path, i) for i in range(FEATURES)] == made[1]


def test_a_card_says_what_the_pass_found(made):
    found, made_cards = made
    for card in made_cards:
        maximum = float(found.statistics.maximum[card.feature])
        assert len(card.contexts) == int((found.contexts.peaks[card.feature] > 0).sum())
        for slot, context in enumerate(card.contexts):
            assert context.peak == pytest.approx(float(found.contexts.peaks[card.feature, slot]), abs=1e-4)
            assert context.levels[context.at] == max(context.levels)
            assert max(context.levels) == pytest.approx(100 * context.peak / maximum, abs=0.51)
            ids = found.contexts.ids[card.feature, slot]
            assert "".join(context.tokens) == _spelt(ids[(ids >= 0) & (ids != BOS)].tolist())


def test_documents_that_repeat_each_other_give_one_context():
    rows = small_rows(6, 16, bos_share=0.0)
    again = [PackedText(row.ids, row.documents + number) for number in range(1, 4) for row in rows]
    found = describe(again, residuals_of, small_autoencoder(), DescribeOptions(math.inf, keep=3))
    assert int((found.contexts.peaks > 0).sum(1).max()) == 3
    cards_of = make_cards(found, small_autoencoder(), None, Detokenizer(_spelt), start=(BOS,))
    for card in cards_of:
        assert len(card.contexts) <= 1
        assert card.promoted == card.suppressed == ()


def test_promoted_tokens_are_those_of_the_centred_logits(made):
    head = torch.randn(VOCABULARY, WIDTH, generator=torch.Generator().manual_seed(2)).double()
    logits = small_autoencoder().decoder.double() @ head.T
    logits -= logits.mean(-1, keepdim=True)
    for card in made[1]:
        order = logits[card.feature].argsort(descending=True).tolist()
        assert [text for text, _ in card.promoted] == [f" w{token}" for token in order[:10]]
        assert [text for text, _ in card.suppressed] == [f" w{token}" for token in order[::-1][:10]]
        assert card.promoted[0][1] == pytest.approx(float(logits[card.feature].max()), abs=0.01)


def test_neighbours_are_nearest_by_decoder_cosine(made):
    unit = torch.nn.functional.normalize(small_autoencoder().decoder.double(), dim=-1)
    cosine = unit @ unit.T - 2 * torch.eye(FEATURES)
    for card in made[1]:
        assert [other for other, _ in card.neighbours] == cosine[card.feature].topk(10).indices.tolist()
        assert card.neighbours[0][1] == pytest.approx(float(cosine[card.feature].max()), abs=1e-3)


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
