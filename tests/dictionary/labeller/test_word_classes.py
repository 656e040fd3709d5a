from __future__ import annotations

import pytest

from monitor.dictionary.labeller.word_classes import FUNCTION_WORDS, NAMES, classes_of, ending_of


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("they", "personal pronouns"),
        ("Don’t", "negations"),
        ("March", "months"),
        ("1984", "years"),
        ("12:30", "times of day"),
        ("13th", "ordinal numbers"),
        ("NASA", "words in capitals"),
        ("ValueError", "Python exceptions"),
        ("max_tokens", "names with underscores"),
        ("camelCase", "names in camel case"),
        (",", "commas"),
        (".", "full stops"),
        ("…", "dots of omission"),
        ("'", "apostrophes"),
        ("\n", "line breaks"),
        ("\n\n", "blank lines"),
        ("    ", "indentations"),
        ("elif", "Python keywords"),
        ("Москва", "Cyrillic letters"),
        ("北京", "Chinese characters"),
        ("café", "words with accents"),
        ("<|im_end|>", "control tokens"),
        ("@", "other signs"),
    ],
)
def test_words_belong_to_classes_that_a_reader_knows(word, name):
    assert name in classes_of(word)
    assert set(classes_of(word)) <= NAMES


def test_an_ordinary_word_belongs_to_none():
    assert classes_of("table") == ()


def test_of_several_marks_each_counts():
    assert set(classes_of('),"')) == {"closing brackets", "commas", "double quotation marks"}


def test_endings_leave_a_stem():
    assert ending_of("explanation") == "ation"
    assert ending_of("Quickly") == "ly"
    assert ending_of("red") is None
    assert ending_of("tables") is None


def test_function_words_do_not_say_what_a_text_is_about():
    assert {"the", "would", "not"} <= FUNCTION_WORDS
    assert not {"march", "flight", "mr"} & FUNCTION_WORDS
