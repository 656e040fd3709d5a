"""Dialogues that are written as text, and what is no dialogue."""

import pytest

from monitor.recipes.smollm2.conversations import turns_of


def test_a_dialogue_becomes_turns() -> None:
    text = "Human: What is 2 + 2?\n\nAssistant: It is 4.\n\nAs everybody knows.\n\nHuman: Thanks!"
    assert turns_of(text) == (
        {"role": "user", "content": "What is 2 + 2?"},
        {"role": "assistant", "content": "It is 4.\n\nAs everybody knows."},
        {"role": "user", "content": "Thanks!"},
    )


def test_a_question_whose_answer_follows_on_the_next_line() -> None:
    turns = turns_of("User: Where is it?\nAssistant: In Rome.")
    assert [turn["role"] for turn in turns] == ["user", "assistant"]
    assert turns[1]["content"] == "In Rome."


def test_turns_of_one_speaker_are_joined_and_empty_ones_left_out() -> None:
    text = "Human: One.\n\nHuman: Two.\n\nAssistant: \n\nHuman: Three."
    assert turns_of(text) == ({"role": "user", "content": "One.\n\nTwo.\n\nThree."},)


@pytest.mark.parametrize(
    "text",
    [
        "A story.",
        "He said: Human: no",
        "Assistant: I begin.\n\nHuman: No.",
        "",
        "Humans: are here",
        "Human:\n\n",
    ],
)
def test_what_does_not_begin_with_a_users_turn_is_no_dialogue(text: str) -> None:
    assert turns_of(text) == ()
