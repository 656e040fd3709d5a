"""The guardrail webhook of agentgateway, kgateway and Gloo AI Gateway."""

import pytest
from jsonschema import ValidationError

from tests.http.conftest import serving
from tests.http.contracts.published import WEBHOOK, PublishedContract
from tests.rpc.fake import policies


def asked(*contents):
    return {"body": {"messages": [{"role": "user", "content": content} for content in contents]}}


def answered(*contents):
    return {"body": {"choices": [{"message": {"role": "assistant", "content": text}} for text in contents]}}


def test_a_benign_prompt_passes(served):
    assert served.post("/request", asked("one two")).json() == {"action": {}}


def test_what_was_found_and_did_not_block_is_the_reason(served):
    assert served.post("/request", asked("a lie")).json() == {"action": {"reason": "detected: deception"}}


def test_an_offending_prompt_is_rejected(served):
    action = served.post("/request", asked("one", "the bomb")).json()["action"]
    assert action["status_code"] == 403
    assert action["body"] == "the content violates a policy"


def test_of_several_choices_the_offending_one_is_replaced_and_the_number_stays(served):
    action = served.post("/response", answered("fine", "a bomb", "")).json()["action"]
    texts = [choice["message"]["content"] for choice in action["body"]["choices"]]
    assert texts == ["fine", "the content violates a policy", ""]
    assert served.post("/response", answered("fine", "")).json() == {"action": {}}


def test_what_could_not_be_checked_does_not_go_on_where_a_policy_is_closed(served):
    assert "status_code" in served.post("/request", asked("sick")).json()["action"]
    action = served.post("/response", answered("sick")).json()["action"]
    assert action["body"]["choices"][0]["message"]["content"] == "the request could not be served"
    with serving(chosen=policies(closed=False)) as running:
        assert running.post("/request", asked("sick")).json() == {"action": {}}
        assert running.metric("fail_open_requests_total") == 1


def called(*texts, said="fine"):
    calls = [{"function": {"name": "f", "arguments": text}} for text in texts]
    return {"role": "assistant", "content": said, "tool_calls": calls}


def test_a_call_that_is_blocked_takes_its_message_with_it(served):
    talk = {"body": {"messages": [{"role": "user", "content": "go"}, called("a", "a bomb")]}}
    assert served.post("/request", talk).json()["action"]["status_code"] == 403
    choices = {"body": {"choices": [{"message": called("a", "a bomb")}, {"message": called("a lie")}]}}
    action = served.post("/response", choices).json()["action"]
    texts = [choice["message"]["content"] for choice in action["body"]["choices"]]
    assert texts == ["the content violates a policy", "fine"]
    assert served.post(
        "/response", {"body": {"choices": [{"message": called("a lie", said=None)}]}}
    ).json() == {"action": {"reason": "detected: deception"}}


def test_what_is_no_text_in_an_answer_is_not_clean(served):
    sound = {"role": "assistant", "content": None, "audio": {"data": "AA"}}
    action = served.post("/response", {"body": {"choices": [{"message": sound}]}}).json()["action"]
    assert action["body"]["choices"][0]["message"]["content"] == "the request could not be served"


def test_thoughts_are_read(served):
    thought = {"role": "assistant", "content": "fine", "reasoning_content": "a bomb"}
    assert "body" in served.post("/response", {"body": {"choices": [{"message": thought}]}}).json()["action"]


def test_wrong_bodies_have_the_errors_of_the_contract(served):
    for path, wrong in (
        ("/request", {}),
        ("/request", asked("")),
        ("/response", {"body": {"choices": [{}]}}),
    ):
        answer = served.post(path, wrong)
        assert answer.status_code == 422
        assert set(answer.json()["detail"][0]) == {"loc", "msg", "type"}


def test_requests_and_answers_are_those_of_the_published_contract(served):
    contract = PublishedContract(WEBHOOK)
    kinds = [
        ("/request", asked("one two"), "PassAction"),
        ("/request", asked("a lie"), "PassAction"),
        ("/request", asked("a bomb"), "RejectAction"),
        ("/request", asked("sick"), "RejectAction"),
        ("/response", answered("one two"), "PassAction"),
        ("/response", answered("a lie"), "PassAction"),
        ("/response", answered("one two", "a bomb"), "MaskAction"),
        ("/response", answered("", "sick"), "MaskAction"),
        ("/response", {"body": {"choices": [{"message": called("a bomb", said="")}]}}, "MaskAction"),
    ]
    for path, body, kind in kinds:
        found = served.post(path, body)
        assert found.status_code == 200
        contract.check(found)
        contract.check_part(kind, found.json()["action"], strict=True)
        contract.check(served.post(path, {}))
    assert contract.checked == contract.described("/request", "/response")
    with pytest.raises((ValidationError, AssertionError)):
        contract.check_part("MaskAction", {"reason": "no body"})
