"""Log probabilities leave with the text of their tokens."""

import pytest

from monitor.http.guard.log_probabilities import HeldLogProbabilities


def of_chat(*tokens, **fields):
    return {"content": [{"token": token, "logprob": -1.0, "top_logprobs": [], **fields} for token in tokens]}


def tokens_of(found):
    return [entry["token"] for entry in (found or {}).get("content") or ()]


def test_what_comes_with_its_text_stays_as_it_is():
    held = HeldLogProbabilities()
    given = of_chat("one", " two")
    assert held.take(given, "one two", ends=False)["content"] == given["content"]


def test_what_runs_ahead_waits_for_its_text():
    held = HeldLogProbabilities()
    assert tokens_of(held.take(of_chat("the", " bo"), "the", ends=False)) == ["the"]
    assert held.take(of_chat("mb"), "", ends=False) is None
    assert tokens_of(held.take(None, " bomb", ends=False)) == [" bo", "mb"]


def test_text_that_came_before_its_log_probabilities_counts():
    held = HeldLogProbabilities()
    assert held.take(None, "one", ends=False) is None
    assert tokens_of(held.take(of_chat("one", " two"), "", ends=False)) == ["one"]


def test_the_end_brings_what_is_left():
    held = HeldLogProbabilities()
    assert tokens_of(held.take(of_chat("<|im_end|>"), "", ends=True)) == ["<|im_end|>"]


def test_parts_of_a_character_are_counted_by_their_bytes():
    held = HeldLogProbabilities()
    pieces = [{"token": "�", "bytes": list(part)} for part in ("日".encode()[:2], "日".encode()[2:])]
    assert held.take({"content": pieces[:1]}, "", ends=False) is None
    assert held.take({"content": pieces[1:]}, "日", ends=False)["content"] == pieces


def test_refusals_are_texts_too():
    held = HeldLogProbabilities()
    given = {"content": None, "refusal": [{"token": "no"}]}
    assert held.take(given, "", ends=False) is None
    assert held.take(None, "no", ends=False) == given


def test_lists_of_completions_are_kept_together():
    held = HeldLogProbabilities()
    given = {"tokens": ["so", " bo"], "token_logprobs": [-1, -2], "top_logprobs": None, "text_offset": [0, 2]}
    found = held.take(given, "so", ends=False)
    assert found == {"tokens": ["so"], "token_logprobs": [-1], "text_offset": [0]}
    assert held.take(None, " bo", ends=False)["text_offset"] == [2]


@pytest.mark.parametrize(
    "given", [None, [], "bomb", {"said": ["bomb"]}, {"content": ["bomb"]}, {"content": None}, {"content": 5}]
)
def test_other_forms_do_not_leave(given):
    assert HeldLogProbabilities().take(given, "text", ends=True) is None
