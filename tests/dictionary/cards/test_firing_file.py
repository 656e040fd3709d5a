from __future__ import annotations

import lzma

import pytest

from monitor.dictionary.cards.card_file import Context
from monitor.dictionary.cards.detokenizer import Detokenizer
from monitor.dictionary.cards.feature_cards import make_firings, make_places
from monitor.dictionary.cards.firing_file import FILE, DrawnPlace, Firings, load, save
from monitor.errors import DictionaryError
from tests.dictionary.cards.made_cards import spelt
from tests.dictionary.small_dictionary import BOS, FEATURES

PLACES = (DrawnPlace(1, ("a", " b"), (3, 4)), DrawnPlace(0, ("é",), ()))
CONTEXTS = [(Context(2.5, 1, ("a", " b"), (0, 100)),), ()]


def test_what_is_written_is_read_back(tmp_path):
    save(tmp_path, "sha256:d", Firings(PLACES, CONTEXTS))
    found = load(tmp_path, "sha256:d")
    assert found.places == PLACES
    assert list(found.contexts) == CONTEXTS


def test_no_file_is_no_places(tmp_path):
    assert load(tmp_path, "sha256:d") is None


def test_a_file_of_another_dictionary_is_refused(tmp_path):
    save(tmp_path, "sha256:d", Firings(PLACES, CONTEXTS))
    with pytest.raises(DictionaryError, match="another dictionary"):
        load(tmp_path, "sha256:e")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"broken",
        lzma.compress(b'{"format": "other"}\n'),
        lzma.compress(b'{"format": "sae-monitor.firings.v1", "dictionary_digest": "d", "places": 2}\n'),
        lzma.compress(b"[]\n"),
        lzma.compress(
            b'{"format": "sae-monitor.firings.v1", "dictionary_digest": "d", "places": 1}\n{"at": 1}\n'
        ),
        lzma.compress(
            b'{"format": "sae-monitor.firings.v1", "dictionary_digest": "d", "places": 0}\n[{"peak": 1}]\n'
        ),
        lzma.compress(b'{"format": "sae-monitor.firings.v1", "dictionary_digest": "d", "places": 0}\n7\n'),
    ],
)
def test_a_broken_file_is_named_with_what_to_do(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(DictionaryError, match=r"firings\.jsonl\.xz.*describe"):
        list(load(tmp_path, "d").contexts)


def test_places_of_features_are_of_other_documents_than_their_cards(made):
    found, _ = made
    firings = list(make_firings(found, Detokenizer(spelt), start=(BOS,), contexts=3))
    assert len(firings) == FEATURES
    for feature, own in enumerate(firings):
        drawn = found.firings.document[found.firings.of(feature)]
        fresh = [d for d in drawn.tolist() if d not in found.contexts.documents[feature].tolist()]
        assert len(own) == len(fresh)
        for context in own:
            assert context.levels[context.at] > 0
            assert spelt([BOS]) not in context.tokens[:1]
    assert any(firings)


def test_drawn_places_name_the_features_that_are_active_there(made):
    found, _ = made
    places = list(make_places(found, Detokenizer(spelt), start=(BOS,)))
    assert len(places) == len(found.places.ids)
    assert sum(len(place.active) for place in places) == len(found.places.feature)
    assert all(place.tokens[place.at] for place in places)
