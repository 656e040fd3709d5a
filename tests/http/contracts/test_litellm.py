"""LiteLLM's generic guardrail."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from monitor.http.contracts.litellm import read
from monitor.policy.policyset import PolicySet
from monitor.policy.schema.policy import Match
from monitor.records import Action
from tests.http.conftest import serving
from tests.rpc.fake import policies, policy

PATH = "/beta/litellm_basic_guardrail_api"
README = Path(__file__).parents[3] / "monitor" / "http" / "README.md"


def documented() -> str:
    """The part of LiteLLM's configuration that the README gives."""
    (found,) = re.findall(r"^```yaml\n(# config.yaml.*?)^```", README.read_text("utf-8"), re.M | re.S)
    return found


def test_the_documented_configuration_checks_every_request_and_lets_nothing_through_unchecked():
    (guardrail,) = YAML(typ="safe").load(documented())["guardrails"]
    said = guardrail["litellm_params"]
    assert said["default_on"] is True
    assert (said["guardrail"], said["unreachable_fallback"]) == ("generic_guardrail_api", "fail_closed")
    assert said["mode"] == ["pre_call", "post_call"]
    assert f"--http-listen {said['api_base'].removeprefix('http://')}`" in README.read_text("utf-8")


def body(*texts, **fields):
    """A request as LiteLLM sends it, with all its fields."""
    return {
        "texts": list(texts),
        "input_type": "request",
        "litellm_call_id": "c",
        "litellm_trace_id": "t",
        "images": None,
        "tools": None,
        "tool_calls": None,
        "structured_messages": None,
        "request_data": {"user_api_key_alias": "k"},
        "request_headers": {"user-agent": "x"},
        "litellm_version": "1.0",
        "additional_provider_specific_params": {},
    } | fields


def test_benign_texts_pass_and_the_verdict_is_there(served):
    answer = served.post(PATH, body("one two", "three")).json()
    assert answer["action"] == "NONE"
    assert "blocked_reason" not in answer
    assert answer["sae_monitor"]["status"] == "checked"
    assert len(answer["sae_monitor"]["verdicts"]) == 2


@pytest.mark.parametrize("direction", ["request", "response"])
def test_an_offending_text_blocks(served, direction):
    answer = served.post(PATH, body("one", "the bomb", input_type=direction)).json()
    assert answer["action"] == "BLOCKED"
    assert answer["blocked_reason"] == "the content violates a policy"
    (phase,) = {d["phase"] for v in answer["sae_monitor"]["verdicts"] for d in v.get("detections", ())}
    assert phase == ("prompt" if direction == "request" else "response")


def test_what_only_alerts_passes(served):
    answer = served.post(PATH, body("a lie")).json()
    assert answer["action"] == "NONE"
    assert answer["sae_monitor"]["action"] == "suppress"


def test_what_could_not_be_checked_is_blocked_where_a_policy_is_closed_and_said_where_open():
    """Never an error, which LiteLLM may be set to let through."""
    with serving() as running:
        answer = running.post(PATH, body("sick"))
        assert answer.status_code == 200
        assert answer.json() == {"action": "BLOCKED", "blocked_reason": "the request could not be served"}
        assert running.post(PATH, body("fine", images=["aGk="])).json()["action"] == "BLOCKED"
    with serving(chosen=policies(closed=False)) as running:
        answer = running.post(PATH, body("fine", images=["aGk="])).json()
        assert (answer["action"], answer["sae_monitor"]["status"]) == ("NONE", "unknown")


def test_a_conversation_is_read_as_one_and_its_calls_and_tools_beside_it():
    called = [{"function": {"name": name, "arguments": "{}"}} for name in ("f", "g")]
    messages = [
        {"role": "system", "content": "be kind"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {}}],
        },
        {"role": "assistant", "content": None, "tool_calls": called},
        {"role": "tool", "content": "42"},
    ]
    again = [*called, {"function": {"name": "h"}}]
    found = read(
        body(
            "be kind",
            "look",
            structured_messages=messages,
            tool_calls=again,
            tools=[{"function": {"name": "f"}}],
        )
    )
    talk = found[0]
    assert [turn["role"] for turn in talk.content] == ["system", "user", "assistant", "tool"]
    assert (talk.unread, talk.answer) == (1, False)
    assert [(one.path, one.content) for one in found[1:]] == [
        ("structured_messages[2].tool_calls[0]", "f\n{}"),
        ("structured_messages[2].tool_calls[1]", "g\n{}"),
        ("tool_calls[2]", "h"),
        ("tools[0]", '{"function": {"name": "f"}}'),
    ]


def test_tool_calls_of_an_answer_are_read_each_by_itself():
    calls = [{"function": {"arguments": text}} for text in ("rm -rf", "ls")]
    found = read(body("hello", input_type="response", tool_calls=calls))
    assert [(one.path, one.content, one.answer) for one in found] == [
        ("texts[0]", "hello", True),
        ("tool_calls[0]", "rm -rf", True),
        ("tool_calls[1]", "ls", True),
    ]


def test_verdicts_say_which_text_they_are_about(served):
    calls = [{"function": {"arguments": text}} for text in ("fine", "a bomb")]
    answer = served.post(PATH, body("hello", input_type="response", tool_calls=calls)).json()
    assert answer["action"] == "BLOCKED"
    assert [(one["text"], one["action"]) for one in answer["sae_monitor"]["verdicts"]] == [
        ("texts[0]", "allow"),
        ("tool_calls[0]", "allow"),
        ("tool_calls[1]", "block"),
    ]


def test_policies_can_be_bound_to_what_litellm_knows_of_its_caller():
    bound = policy("weapons", 9, Action.BLOCK, match=Match(labels={"team": "search"}))
    with serving(chosen=PolicySet((bound,), "sha256:" + "c" * 64)) as running:
        known = {"user_api_key_team_alias": "search"}
        assert running.post(PATH, body("bomb", request_data=known)).json()["action"] == "BLOCKED"
        assert running.post(PATH, body("bomb")).json()["action"] == "NONE"


def test_a_request_without_anything_is_wrong(served):
    assert served.post(PATH, body()).status_code == 400


LITELLM = os.environ.get("LITELLM") or shutil.which("litellm")
TYPES = """
import json, sys
from litellm.types.proxy.guardrails.guardrail_hooks.generic_guardrail_api import (
    GenericGuardrailAPIRequest as Request,
    GenericGuardrailAPIResponse as Response,
)
found = []
for asked, answered in json.load(sys.stdin):
    Request.model_validate(asked)
    known = set(asked) <= set(Request.model_fields)
    read = Response.from_dict(answered)
    found.append([known, read.action, read.blocked_reason, read.texts, read.structured_messages])
print(json.dumps(found))
"""


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(
    LITELLM is None, reason="LiteLLM is not here; install it elsewhere and set LITELLM to its proxy"
)
def test_requests_and_answers_are_those_of_litellms_own_types(served):
    """The contract has no OpenAPI file: its types are in LiteLLM, and say the same as its documentation."""
    calls = [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": text}}
        for text in ("{}", "a bomb")
    ]
    talk = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": None, "tool_calls": calls[:1]},
        {"role": "tool", "tool_call_id": "1", "content": "done"},
    ]
    tools = [{"type": "function", "function": {"name": "f", "description": "reads", "parameters": {}}}]
    blocked, unchecked = "the content violates a policy", "the request could not be served"
    cases = [
        (body("one two", model="m"), "NONE", None),
        (body("a lie"), "NONE", None),
        (body("the bomb"), "BLOCKED", blocked),
        (body("the bomb", input_type="response"), "BLOCKED", blocked),
        (body("x", input_type="response", tool_calls=calls), "BLOCKED", blocked),
        (body("go", structured_messages=talk, tool_calls=calls[:1], tools=tools), "NONE", None),
        (body("sick"), "BLOCKED", unchecked),
        (body("one", images=["aGk="]), "BLOCKED", unchecked),
    ]
    answers = [served.post(PATH, asked).json() for asked, *_ in cases]
    done = subprocess.run(
        [str(Path(str(LITELLM)).parent / "python"), "-c", TYPES],
        input=json.dumps([[asked, answer] for (asked, *_), answer in zip(cases, answers, strict=True)]),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == [[True, action, reason, None, None] for _, action, reason in cases]
