"""Feature cards: contexts, promoted tokens and neighbours, against plain computations."""

from __future__ import annotations

import math

import pytest
import torch

from monitor.dictionary.cards.description import DescribeOptions, describe
from monitor.dictionary.cards.detokenizer import Detokenizer
from monitor.dictionary.cards.feature_cards import make_cards
from monitor.dictionary.packed_text import PackedText
from tests.dictionary.cards.made_cards import spelt
from tests.dictionary.small_dictionary import (
    BOS,
    FEATURES,
    VOCABULARY,
    WIDTH,
    residuals_of,
    small_autoencoder,
    small_rows,
)


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
            assert "".join(context.tokens) == spelt(ids[(ids >= 0) & (ids != BOS)].tolist())


def test_documents_that_repeat_each_other_give_one_context():
    rows = small_rows(6, 16, bos_share=0.0)
    again = [PackedText(row.ids, row.documents + number) for number in range(1, 4) for row in rows]
    found = describe(again, residuals_of, small_autoencoder(), DescribeOptions(math.inf, keep=3))
    assert int((found.contexts.peaks > 0).sum(1).max()) == 3
    cards_of = make_cards(found, small_autoencoder(), None, Detokenizer(spelt), start=(BOS,))
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


def test_no_more_contexts_than_asked_for(made):
    found, all_cards = made
    few = list(make_cards(found, small_autoencoder(), None, Detokenizer(spelt), start=(BOS,), contexts=1))
    assert max(len(card.contexts) for card in all_cards) > 1
    assert [card.contexts for card in few] == [card.contexts[:1] for card in all_cards]


def test_the_token_that_begins_a_text_is_left_out_of_windows(made):
    found, _ = made
    with_bos = list(make_cards(found, small_autoencoder(), None, Detokenizer(spelt)))
    without = list(make_cards(found, small_autoencoder(), None, Detokenizer(spelt), start=(BOS,)))

    def begins(cards):
        return sum(f" w{BOS}" in context.tokens for card in cards for context in card.contexts)

    assert begins(with_bos) > 0
    assert begins(without) == 0
