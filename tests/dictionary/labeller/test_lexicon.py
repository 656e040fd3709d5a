from __future__ import annotations

import pytest

from monitor.dictionary.labeller.lexicon import Lexicon, lexicon
from tests.dictionary.labeller.needs import needs_wordnet

SMALL = "cities; dogs\n0\toslo new_york\n1\tpoodle\n0,1\todd\n\tflight\n=\twent=go women=woman\n"


def test_the_file_is_read_as_it_is_laid_out():
    small = Lexicon(SMALL)
    assert small.categories("oslo") == ("cities",)
    assert small.categories("odd") == ("cities", "dogs")
    assert small.categories("poodles") == ("dogs",)
    assert small.categories("flight") == ()
    assert small.categories("nowhere") == ()
    assert small.names == {"new_york"}
    assert [small.base(word) for word in ("went", "flights", "women", "xyzs")] == [
        "go",
        "flight",
        "woman",
        "xyzs",
    ]


@needs_wordnet
@pytest.mark.parametrize(
    ("word", "category"),
    [
        ("california", "US states"),
        ("paris", "cities"),
        ("san_francisco", "cities"),
        ("wine", "drinks"),
        ("dogs", "animals"),
        ("said", "verbs of saying"),
        ("anger", "emotions"),
        ("france", "European countries"),
        ("women", "women"),
    ],
)
def test_what_ships_knows_common_words(word, category):
    assert category in lexicon().categories(word)


@needs_wordnet
@pytest.mark.parametrize(
    ("form", "base"),
    [
        ("promised", "promise"),
        ("stopping", "stop"),
        ("cities", "city"),
        ("flights", "flight"),
        ("went", "go"),
        ("running", "run"),
        ("class", "class"),
        ("thing", "thing"),
        ("the", "the"),
    ],
)
def test_forms_have_a_base(form, base):
    assert lexicon().base(form) == base


def test_function_words_have_no_category():
    assert lexicon().categories("may") == lexicon().categories("will") == ()


def test_without_wordnet_the_names_of_categories_are_known_and_no_word(monkeypatch):
    monkeypatch.setattr("monitor.dictionary.labeller.lexicon.wordnet_folder", lambda: None)
    bare = lexicon.__wrapped__()
    assert {"cities", "verbs of saying"} <= set(bare.phrases)
    assert (bare.categories("paris"), bare.base("went")) == ((), "went")
