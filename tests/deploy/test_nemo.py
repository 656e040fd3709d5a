"""The rails for NeMo Guardrails, as they are shipped, under NeMo Guardrails in an environment of its own."""

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import httpx2
import pytest
from ruamel.yaml import YAML

from tests.http.conftest import serving
from tests.http.guard.upstream import upstream
from tests.rpc.fake import policies

FOLDER = Path(__file__).parents[2] / "deploy" / "nemo"
PYTHON = os.environ.get("NEMO_PYTHON")
RUN = """
import asyncio, json, sys
from nemoguardrails import LLMRails, RailsConfig

config = RailsConfig.from_path(sys.argv[1])
config.models = []
settings = config.custom_data["sae_monitor"]
rails = LLMRails(config)

async def said(text, answer=None):
    messages = [{"role": "user", "content": text}]
    if answer is not None:
        messages.append({"role": "assistant", "content": answer})
    which = ["input"] if answer is None else ["output"]
    found = await rails.generate_async(messages=messages, options={"rails": which})
    return found.response[-1]["content"]

async def pieces(*texts):
    async def source():
        for text in texts:
            yield text
    asked = [{"role": "user", "content": "hello"}]
    return [piece async for piece in rails.stream_async(messages=asked, generator=source())]

def made(*texts):
    return [{"id": "c", "type": "function", "function": {"name": "f", "arguments": text}} for text in texts]

async def called(*texts):
    messages = [{"role": "user", "content": "go"}, {"role": "assistant", "content": "", "tool_calls": made(*texts)}]
    found = await rails.generate_async(messages=messages, options={"rails": ["tool_output"]})
    return [found.response[-1]["content"], len(found.tool_calls or ())]

async def returned(text):
    tool = {"role": "tool", "tool_call_id": "c", "name": "f", "content": text}
    messages = [{"role": "user", "content": "go"}, tool]
    found = await rails.generate_async(messages=messages, options={"rails": ["tool_input"]})
    return found.response[-1]["content"]

async def main():
    settings["url"] = sys.argv[2]
    found = {
        "calls": await called("one", "two"),
        "offending calls": await called("one", "a bomb"),
        "calls apart": await called("bo", "mb"),
        "result": await returned("fine"),
        "offending result": await returned("a bomb"),
        "benign": await said("hello there"),
        "offending": await said("a bomb"),
        "answer": await said("hello", "all is fine"),
        "offending answer": await said("hello", "a bomb"),
        "stream": await pieces("one ", "two ", "three "),
        "offending stream": await pieces("one ", "bomb ", "three "),
    }
    settings["url"] = "http://127.0.0.1:1"
    found["closed"] = await said("hello there")
    settings["url"] = sys.argv[2]
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    found["parts"] = await said([{"type": "text", "text": "a bomb"}, image])
    found["image"] = await said([image])
    settings["url"] = "http://127.0.0.1:1"
    settings["on_unreachable"] = "open"
    found["open"] = await said("hello there")
    print(json.dumps(found))

asyncio.run(main())
"""


def test_the_configuration_asks_before_anything_leaves():
    found = YAML(typ="safe").load(FOLDER / "config.yml")
    streaming = found["rails"]["output"]["streaming"]
    assert (streaming["enabled"], streaming["stream_first"]) == (True, False)
    assert found["custom_data"]["sae_monitor"]["on_unreachable"] == "closed"
    flows = (FOLDER / "rails.co").read_text()
    for rail in ("input", "output", "tool_input", "tool_output"):
        for flow in found["rails"][rail]["flows"]:
            assert f"define subflow {flow}\n" in flows
    assert 'name="check_with_sae_monitor"' in (FOLDER / "actions.py").read_text()


@dataclass
class Outcome:
    """What the action says of a text."""

    blocked: bool

    @classmethod
    def allow(cls, **_):
        return cls(False)

    @classmethod
    def block(cls, **_):
        return cls(True)


@pytest.fixture
def checked(monkeypatch):
    """The action, without NeMo Guardrails around it."""
    modules = {name: ModuleType(f"nemoguardrails.{name}") for name in ("actions", "actions.rail_outcome")}
    modules["actions"].action = lambda **_: lambda function: function
    modules["actions.rail_outcome"].RailOutcome = Outcome
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, f"nemoguardrails.{name}", module)
    monkeypatch.setitem(sys.modules, "nemoguardrails", ModuleType("nemoguardrails"))
    monkeypatch.setitem(
        sys.modules, "httpx", httpx2
    )  # which stands in NeMo Guardrails' environment under that name
    spec = importlib.util.spec_from_file_location("nemo_actions", FOLDER / "actions.py")
    actions = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(actions)

    def check(content, url, calls=None, **settings):
        config = SimpleNamespace(custom_data={"sae_monitor": settings | {"url": url}})
        return asyncio.run(actions.check_with_sae_monitor(content, calls, config=config)).blocked

    return check


@pytest.mark.parametrize(
    ("answer", "blocked"),
    [
        ({"action": "NONE"}, False),
        ({"action": "BLOCKED"}, True),
        ({"action": "GUARDRAIL_INTERVENED", "texts": ["…"]}, True),
        ({"action": None}, True),
        ([], True),
        (b"<html>", True),
    ],
)
def test_only_a_word_that_says_so_lets_a_text_through(checked, answer, blocked):
    with upstream() as behind:
        behind.script = lambda reply: reply.whole(answer)
        assert checked("hello", behind.url) is blocked
        behind.script = lambda reply: reply.whole(answer, 401)
        assert checked("hello", behind.url)


def test_settings_that_cannot_be_used_let_nothing_through(checked):
    assert checked("hello", "http://127.0.0.1:port")
    assert checked("hello", "http://127.0.0.1:1", timeout_seconds="soon")
    assert not checked("hello", "http://127.0.0.1:port", on_unreachable="open")


def test_messages_of_parts_are_asked_in_full(checked):
    parts = [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "data:,"}, "text": "beside"},
        "here",
    ]
    with upstream() as behind:
        behind.script = lambda reply: reply.whole({"action": "NONE"})
        assert not checked(parts, behind.url)
        assert behind.asked[-1].json["texts"] == ["look", "beside", "here"]
        assert len(behind.asked[-1].json["images"]) == 1
        assert behind.asked[-1].json["structured_messages"] == [{"role": "user", "content": parts}]
        assert not checked([{"type": "text", "text": " "}], behind.url)
        assert not checked(None, behind.url)
        assert len(behind.asked) == 1


def test_a_word_over_two_parts_of_a_message_is_read_whole(checked):
    with serving(chosen=policies()) as served:
        url = served.addresses.http
        assert checked([{"type": "text", "text": "the bo"}, {"type": "text", "text": "mb"}], url)
        assert checked([{"type": "text", "text": "the"}, {"type": "text", "text": "bomb"}], url)
        assert not checked([{"type": "text", "text": "the "}, {"type": "text", "text": "cat"}], url)


def test_calls_of_tools_are_asked_as_they_are(checked):
    calls = [{"id": "1", "type": "tool_call", "name": "f", "args": {"x": "y"}}]
    with upstream() as behind:
        behind.script = lambda reply: reply.whole({"action": "NONE"})
        assert not checked(None, behind.url, calls)
        assert (behind.asked[-1].json["tool_calls"], behind.asked[-1].json["texts"]) == (calls, [])
        assert checked(None, "http://127.0.0.1:1", calls)
        assert checked(None, behind.url, 7)  # which is no list of calls


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(
    PYTHON is None,
    reason="NeMo Guardrails is not here; install nemoguardrails elsewhere and set NEMO_PYTHON to its Python",
)
def test_rails_refuse_what_a_policy_blocks():
    with serving(chosen=policies()) as served:
        done = subprocess.run(
            [PYTHON, "-c", RUN, str(FOLDER), served.addresses.http],
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    refused = "I'm sorry, I can't respond to that."
    assert (found["benign"], found["offending"]) == ("hello there", refused)
    assert (found["answer"], found["offending answer"]) == ("all is fine", refused)
    assert "".join(found["stream"]).split() == ["one", "two", "three"]
    assert "bomb" not in "".join(found["offending stream"])
    assert (found["closed"], found["open"]) == (refused, "hello there")
    assert (found["parts"], found["image"]) == (refused, refused)
    assert (found["calls"], found["offending calls"]) == (["", 2], [refused, 0])
    assert found["calls apart"] == ["", 2]
    assert (found["result"], found["offending result"]) == ("", refused)
