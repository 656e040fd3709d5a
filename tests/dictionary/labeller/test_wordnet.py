"""WordNet's files as a lexicon: a few words in their layout, and where the folder is looked for."""

from __future__ import annotations

import pytest

from monitor.dictionary.labeller import wordnet
from monitor.dictionary.labeller.lexicon import Lexicon

NOUNS = """\
  1 a licence
00000001 03 n 01 entity 0 000 | all
00000002 03 n 01 city 0 001 @ 00000001 n 0000 | a town
00000003 15 n 02 Oslo 0 capital_of_Norway 0 001 @i 00000002 n 0000 | a city
00000004 15 n 01 New_York 0 001 @i 00000002 n 0000 | a city
00000005 05 n 01 dog 0 001 @ 00000001 n 0000 | an animal
00000006 05 n 01 poodle 0 001 @ 00000005 n 0000 | a dog
00000007 04 n 01 say 0 001 @ 00000005 n 0000 | a chance to speak
"""
NOUN_INDEX = """\
  1 a licence
city n 1 1 @ 1 1 00000002
oslo n 1 1 @ 1 0 00000003
new_york n 1 1 @ 1 0 00000004
dog n 1 1 @ 1 1 00000005
poodle n 1 1 @ 1 0 00000006
say n 1 1 @ 1 0 00000007
hot_dog n 1 1 @ 1 0 00000006
"""
VERBS = "00000001 32 v 01 say 0 000 01 + 08 00 | speak\n"
COUNTS = "say%2:32:00:: 1 100\ndog%1:05:00:: 1 9\nsay%1:04:00:: 1 2\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(wordnet, "CATEGORIES", "city=cities;dog=dogs")
    for name, text in (
        ("data.noun", NOUNS),
        ("index.noun", NOUN_INDEX),
        ("data.verb", VERBS),
        ("index.verb", "say v 1 0 1 1 00000001\n"),
        ("cntlist.rev", COUNTS),
        ("noun.exc", "mice mouse\n"),
        ("verb.exc", "said say\n"),
    ):
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_folder_is_the_one_that_is_named_or_the_usual_one(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(wordnet, "PLACE", tmp_path / "nowhere")
    monkeypatch.delenv("WNSEARCHDIR", raising=False)
    assert wordnet.wordnet_folder() is None
    monkeypatch.setenv("WNSEARCHDIR", str(folder))
    assert wordnet.wordnet_folder() == folder


def test_words_get_the_categories_above_them(folder):
    made = Lexicon(wordnet.lexicon_text(folder))
    assert made.categories("oslo") == made.categories("new_york") == ("cities",)
    assert made.categories("poodles") == ("dogs",)
    assert made.categories("said") == ("verbs of saying",)  # the noun is too rare to count
    assert made.categories("capital_of_norway") == ()
    assert made.names == {"new_york"}  # two words only where they are a name
    assert made.base("mice") == "mouse"


def test_every_category_is_written_as_a_phrase():
    phrases = [entry.partition("=")[2] for entry in wordnet.CATEGORIES.replace("\n", ";").split(";") if entry]
    assert all(phrases)
    assert not any(mark in phrase for phrase in phrases for mark in ";,“”()=")
