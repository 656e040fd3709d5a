"""Texts where they occur: asked, said, both, or alone."""

import pytest

from monitor.policy.files.occurrences import (
    QUESTIONS,
    Kind,
    answers,
    dialogue_of,
    kind_called,
    occurrences,
    one_occurrence,
    plain,
)

TEXT = "I want more power."
DIALOGUE = "Human: Is it flat?\n\nAssistant: No.\n\nIt is round.\n\nHuman: Sure?\n\nAssistant: Yes."


def roles(document):
    return [turn["role"] for turn in document]


def test_a_request_is_a_users_turn_and_an_answer_stands_behind_a_question():
    (asked,) = occurrences(TEXT, Kind.REQUEST, turns=True)
    assert asked == ({"role": "user", "content": TEXT},)
    (said,) = occurrences(TEXT, Kind.RESPONSE, turns=True)
    assert roles(said) == ["user", "assistant"]
    assert said[0]["content"] in QUESTIONS
    assert said[1]["content"] == TEXT
    assert occurrences(TEXT, Kind.STATEMENT, turns=True) == (asked, said)
    assert [answers(asked), answers(said), answers(TEXT)] == [False, True, False]
    assert [plain(asked), plain(said), plain(TEXT)] == [TEXT] * 3


@pytest.mark.parametrize("kind", list(Kind))
def test_a_model_without_a_chat_template_reads_every_text_once_and_as_it_is(kind):
    for text in (TEXT, DIALOGUE):
        assert occurrences(text, kind, turns=False) == (text,)


def test_a_text_by_itself_is_never_put_into_a_conversation():
    assert occurrences(TEXT, Kind.TEXT, turns=True) == (TEXT,)
    assert occurrences(DIALOGUE, Kind.TEXT, turns=True) == (DIALOGUE,)


def test_a_written_dialogue_is_that_conversation():
    (found,) = occurrences(DIALOGUE, Kind.STATEMENT, turns=True)
    assert [(turn["role"], turn["content"]) for turn in found] == [
        ("user", "Is it flat?"),
        ("assistant", "No.\n\nIt is round."),
        ("user", "Sure?"),
        ("assistant", "Yes."),
    ]
    assert plain(found) == "Is it flat?\n\nNo.\n\nIt is round.\n\nSure?\n\nYes."
    assert roles(dialogue_of("Human: Only asked.")) == ["user"]
    assert roles(dialogue_of("Human: Asked.\n\nAssistant:")) == ["user"], "an empty answer is none"


@pytest.mark.parametrize("text", ["", TEXT, "Assistant: Hi.", "Human: a\n\nHuman: b", "A Human: said"])
def test_what_is_no_dialogue_is_a_text(text):
    assert dialogue_of(text) == ()


def test_one_occurrence_is_always_the_same_and_both_kinds_come_up():
    found = [one_occurrence(f"text {i}", Kind.STATEMENT, turns=True) for i in range(60)]
    assert found == [one_occurrence(f"text {i}", Kind.STATEMENT, turns=True) for i in range(60)]
    assert 15 < sum(map(answers, found)) < 45


def test_words_of_labelled_files():
    words = ("prompt", "request", "Response", "code", "", "message", "text")
    found = [kind_called(word) for word in words]
    assert found == [
        Kind.REQUEST,
        Kind.REQUEST,
        Kind.RESPONSE,
        Kind.STATEMENT,
        Kind.STATEMENT,
        Kind.STATEMENT,
        Kind.TEXT,
    ]
