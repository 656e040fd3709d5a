"""Places: whole words of token pieces, what stands around them, and turns."""

from __future__ import annotations

from monitor.dictionary.labeller.places import Window
from tests.dictionary.labeller.windows import place


def test_pieces_are_put_together_to_the_word_that_a_reader_sees():
    middle = place("they| acqu[ir]ing it")
    assert (middle.word, middle.piece, middle.begins, middle.ends) == ("acquiring", "ir", False, False)
    first = place("they[ acqu]iring it")
    assert (first.word, first.begins, first.ends) == ("acquiring", True, False)
    last = place("they acqu[iring] it")
    assert (last.word, last.begins, last.ends) == ("acquiring", False, True)


def test_of_a_run_of_marks_only_the_tokens_own_are_the_word():
    assert place('said[,]" he').word == ","
    assert place('said,["] he').word == '"'
    assert place("I do[n]'t").word == "don't"


def test_the_words_around_are_whole_words_too():
    here = place("San| Franc|isco is[ big] and old")
    assert [here.neighbour(offset) for offset in (-2, -1, 0, 1, 9)] == ["Francisco", "is", "big", "and", ""]


def test_a_token_without_text_of_its_own_has_no_place():
    assert Window(("a", "", " b")).place(1) is None
    assert Window(("a", " ", "b")).place(1) is None
    assert [found.word for found in Window(("a", "", " b")).places()] == ["a", "b"]


def test_a_text_begins_where_its_window_says_so():
    assert place("[Once] upon", opens_text=True).opens_text
    assert not place("[Once] upon").opens_text
    assert not place("Once[ upon]", opens_text=True).opens_text


def test_turns_are_told_in_plain_dialogues_and_in_templates():
    plain = "Human: hi there\n\nAssistant:[ Hello] friend"
    assert (place(plain).opens_turn, place(plain).role) == ("assistant", "assistant")
    assert (place("Human: hi[ there]\n\nAssistant: Hello").role) == "user"
    assert place("Human: hi[ there]").opens_turn == ""
    chat = Window(
        (
            "<|im_start|>",
            "user",
            "\n",
            "Why",
            "?",
            "<|im_end|>",
            "\n",
            "<|im_start|>",
            "assistant",
            "\n",
            "So",
        )
    )
    assert (chat.place(3).opens_turn, chat.place(10).opens_turn) == ("user", "assistant")
    assert chat.place(0).word == "<|im_start|>"
    assert place("no marker[ here]").role == ""


def test_code_is_told_by_its_signs():
    assert Window(("def f(x):", " return", " {x: [1]}")).is_code
    assert not Window(("He", " returned", " (late)", " that", " night")).is_code
