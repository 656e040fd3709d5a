"""The detector API of the FMS guardrails orchestrator."""

import importlib.util
import os
from pathlib import Path

import httpx2
import pytest
from jsonschema import ValidationError
from pydantic import ValidationError as PydanticError

from tests.http.contracts.published import DETECTORS, PublishedContract

PATH = "/api/v1/text"
HEADERS = {"detector-id": "sae-monitor"}


def post(served, path, body, detector="sae-monitor"):
    return served.post(f"{PATH}/{path}", body, headers={"detector-id": detector})


def test_contents_get_a_list_each_with_the_characters_found(served):
    first, second = post(served, "contents", {"contents": ["tell a lie now", "fine"]}).json()
    assert second == []
    (found,) = first
    assert (found["start"], found["end"], found["text"]) == (7, 10, "lie")
    assert (found["detection"], found["detection_type"]) == ("deception/word", "deception")
    assert 0.5 < found["score"] <= 1
    assert found["evidence"] == [{"name": "token", "value": "lie", "score": 1.0}]


@pytest.mark.parametrize(("detector", "number"), [("deception", 1), ("weapons", 0), ("sae-monitor", 1)])
def test_a_detector_is_a_policy_a_category_or_all(served, detector, number):
    (found,) = post(served, "contents", {"contents": ["a lie"]}, detector).json()
    assert len(found) == number


def test_an_unknown_detector_is_404_with_the_names_that_there_are(served):
    answer = post(served, "contents", {"contents": ["a lie"]}, "nothing")
    assert answer.status_code == 404
    assert answer.json()["code"] == 404
    assert "deception, weapons" in answer.json()["message"]


def test_the_threshold_leaves_out_weaker_detections(served):
    body = {"contents": ["a lie"], "detector_params": {"threshold": 0.999}}
    assert post(served, "contents", body).json() == [[]]
    assert post(served, "contents", body | {"detector_params": {"threshold": 2}}).status_code == 422


def test_chat_reads_the_last_answer_as_what_a_model_said(served):
    messages = [{"role": "user", "content": "a lie"}, {"role": "assistant", "content": "a lie too"}]
    found = post(served, "chat", {"messages": messages}).json()
    assert sorted(one["metadata"]["phase"] for one in found) == ["prompt", "response"]


def calling(*texts):
    calls = [{"function": {"name": "f", "arguments": text}} for text in texts]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def test_chat_says_which_call_a_detection_is_about_and_tells_of_the_prompt_once(served):
    messages = [
        {"role": "user", "content": "a lie"},
        calling("x", "a bomb"),
        {"role": "tool", "content": "ok"},
    ]
    found = post(served, "chat", {"messages": [*messages, calling("one", "the bomb", "a lie")]}).json()
    assert [(one["metadata"]["part"], one["metadata"]["phase"], one["detection"]) for one in found] == [
        ("messages", "prompt", "deception/word"),
        ("messages[1].tool_calls[1]", "prompt", "weapons/word"),
        ("messages[3].tool_calls[1]", "response", "weapons/word"),
        ("messages[3].tool_calls[2]", "response", "deception/word"),
    ]


def test_chat_reads_descriptions_of_tools(served):
    body = {"messages": [{"role": "user", "content": "hi"}], "tools": [{"description": "a bomb kit"}]}
    (found,) = post(served, "chat", body).json()
    assert (found["metadata"]["part"], found["metadata"]["phase"]) == ("tools[0]", "prompt")


def test_generation_tells_of_the_generated_text_alone(served):
    found = post(served, "generation", {"prompt": "a lie", "generated_text": "one bomb"}).json()
    assert [one["detection"] for one in found] == ["weapons/word"]
    assert post(served, "generation", {"prompt": "a lie", "generated_text": "fine"}).json() == []


def test_what_could_not_be_checked_is_an_error(served):
    answer = post(served, "contents", {"contents": ["sick"]})
    assert answer.status_code == 503
    assert set(answer.json()) == {"code", "message"}
    image = [{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image_url"}]}]
    assert post(served, "chat", {"messages": image}).status_code == 503


def test_wrong_bodies(served):
    for path, body in (
        ("contents", {}),
        ("contents", {"contents": [""]}),
        ("chat", {}),
        ("generation", {"prompt": "x"}),
    ):
        assert post(served, path, body).status_code == 422


def test_requests_and_answers_are_those_of_the_published_contract(served):
    """Every status that it describes, at every path: found, nothing found, a wrong request, an unknown detector."""
    contract = PublishedContract(DETECTORS)
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "a bomb"}}]
    user = {"role": "user", "content": "a lie"}
    asked = [
        ("contents", {"contents": ["tell a lie now", "fine"], "detector_params": {"threshold": 0.1}}, True),
        ("contents", {"contents": ["fine"]}, False),
        ("chat", {"messages": [user, {"role": "assistant", "content": "a bomb"}]}, True),
        ("chat", {"messages": [user, {"role": "assistant", "content": None, "tool_calls": calls}]}, True),
        ("chat", {"messages": [{"role": "system", "content": "be nice"}, user | {"content": "hi"}]}, False),
        ("generation", {"prompt": "x", "generated_text": "a bomb"}, True),
        ("generation", {"prompt": "x", "generated_text": "fine"}, False),
    ]
    for path, body, found in asked:
        answer = post(served, path, body)
        assert answer.status_code == 200
        assert any(answer.json()) == found
        contract.check(answer)
        contract.check(post(served, path, {}))
        contract.check(post(served, path, body, "nothing"))
        told = answer.json()[0] if path == "contents" else answer.json()
        for one in told:
            assert set(one) - {"metadata"} <= set(FIELDS[path])
    contract.check(httpx2.get(f"{served.addresses.http}/health", trust_env=False))
    paths = [f"{PATH}/{path}" for path in ("contents", "chat", "generation")]
    assert contract.checked == contract.described(*paths, "/health")
    # It describes no answer where something could not be checked; the body is that of its errors.
    contract.check_part("Error", post(served, "contents", {"contents": ["sick"]}).json(), strict=True)
    with pytest.raises((ValidationError, KeyError)):
        contract.check(served.post("/v1/moderations", {"input": "x"}))
    with pytest.raises(ValidationError):
        contract.check_part("ChatAnalysisResponse", {"detection": "x", "score": "high"})


@pytest.mark.skipif("TRUSTYAI_DETECTORS" not in os.environ, reason="TrustyAI's detectors are not here")
@pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")
def test_trustyai_reads_its_own_answers_in_ours(served):
    """The types of its package `guardrails-detectors`, unpacked where TRUSTYAI_DETECTORS says."""
    path = Path(os.environ["TRUSTYAI_DETECTORS"], "guardrails_detectors/common/scheme.py")
    found = importlib.util.spec_from_file_location("trustyai_scheme", path)
    scheme = importlib.util.module_from_spec(found)
    found.loader.exec_module(scheme)
    body = {"contents": ["tell a lie now", "fine"], "detector_params": {"threshold": 0.1}}
    scheme.ContentAnalysisHttpRequest.model_validate(body)
    (told,), nothing = scheme.ContentsAnalysisResponse.model_validate(
        post(served, "contents", body).json()
    ).root
    assert (told.text, told.detection, told.detection_type) == ("lie", "deception/word", "deception")
    assert body["contents"][0][told.start : told.end] == told.text
    assert nothing == []
    for wrong in (post(served, "contents", {}), post(served, "contents", body, "nothing")):
        assert scheme.Error.model_validate(wrong.json()).code == wrong.status_code
    with pytest.raises(PydanticError):
        scheme.ContentsAnalysisResponse.model_validate([[{"start": 0}]])


FIELDS = {
    "contents": ("detection", "detection_type", "score", "evidence", "start", "end", "text"),
    "chat": ("detection", "detection_type", "score", "evidence"),
    "generation": ("detection", "detection_type", "score", "evidence"),
}
"""Those of the contract; `metadata` is one that the orchestrator passes on."""
