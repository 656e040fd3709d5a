"""Answers in the form of the OpenAI API."""

from monitor.http.openai.answers import FINISH, Answer, ChatShape, Choice, CompletionShape, fingerprint, usage
from monitor.model.engine.requests import Released
from monitor.records import Action, Coverage, Digests, FinishReason, Status, Verdict
from monitor.rpc.runs import Ending
from monitor.rpc.wire.enums import FINISH_REASON

VERDICT = Verdict(Status.CHECKED, Action.ALLOW, Coverage(3, 3))


def choice(text="one two", tokens=2, prompt=3, reason=FinishReason.STOP, refusal=""):
    return Choice([Released(text)], Ending(reason, VERDICT, refusal, tokens), prompt)


def test_every_finish_reason_of_an_answer_has_a_word_of_the_api():
    # A generation that fails is answered with an error.
    assert set(FINISH) == set(FINISH_REASON) - {FinishReason.ERROR}


def test_prompts_are_counted_once_however_many_answers_they_got():
    choices = [choice(), choice(tokens=4), choice(prompt=5), choice(prompt=5)]
    assert usage(choices, 2) == {"prompt_tokens": 8, "completion_tokens": 10, "total_tokens": 18}


def test_a_whole_chat_and_a_whole_completion():
    chat = Answer(ChatShape(), "id", "m", "fp").whole([choice(reason=FinishReason.POLICY, refusal="no")], 1)
    assert chat["choices"][0]["message"] == {"role": "assistant", "content": "one two", "refusal": "no"}
    assert chat["choices"][0]["finish_reason"] == "content_filter"
    text = Answer(CompletionShape(), "id", "m", "fp").whole([choice()], 1)
    assert (text["id"], text["object"]) == ("cmpl-id", "text_completion")
    assert text["choices"] == [{"index": 0, "text": "one two", "logprobs": None, "finish_reason": "stop"}]


def test_the_fingerprint_changes_with_each_part():
    first = fingerprint(Digests("sha256:" + "a" * 64, "sha256:" + "b" * 64, "sha256:" + "c" * 64))
    assert first == "fp_aaaaaaaa-bbbbbbbb-cccccccc"
    assert first != fingerprint(Digests("sha256:" + "a" * 64, "sha256:" + "b" * 64, "sha256:" + "d" * 64))
