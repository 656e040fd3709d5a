"""LiteLLM's own proxy, with this server as its guardrail and another one as the model behind it.

Runs where LITELLM names the proxy's executable or `litellm` is on the path. `pip install 'litellm[proxy]'` brings it,
best into an environment of its own.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import openai
import pytest

from monitor.policy.policyset import PolicySet
from monitor.records import Action, Phase
from tests.http.conftest import MODEL, serving
from tests.http.contracts.test_litellm import documented
from tests.http.guard.upstream import upstream
from tests.rpc.fake import policies, policy
from tests.waiting import wait_for

LITELLM = os.environ.get("LITELLM") or shutil.which("litellm")
pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(LITELLM is None, reason="LiteLLM's proxy is not installed (see the top of this file)"),
]
MODELS = """
model_list:
  - model_name: fake
    litellm_params: {{model: openai/{model}, api_base: "{upstream}/v1", api_key: none}}
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def proxy(folder: Path, upstream: str, guard: str, **changes: str) -> Iterator[openai.OpenAI]:
    """LiteLLM's proxy, and a client of it. `changes`: of values in the guardrail's configuration, by name."""
    assert LITELLM is not None
    config, key, port = folder / "config.yaml", f"sk-{secrets.token_urlsafe(32)}", free_port()
    guardrails = documented().replace("http://127.0.0.1:8090", guard)
    for name, value in changes.items():
        guardrails, found = re.subn(rf"{name}: \S+", f"{name}: {value}", guardrails)
        assert found == 1
    config.write_text(MODELS.format(model=MODEL, upstream=upstream) + guardrails)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"LITELLM_MASTER_KEY": key, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "*"}
    command = [LITELLM, "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
        try:
            wait_for(lambda: alive(process, port), 120.0)
            with openai.OpenAI(
                base_url=f"http://127.0.0.1:{port}/v1",
                api_key=key,
                max_retries=0,
                http_client=openai.DefaultHttpxClient(trust_env=False),
            ) as client:
                yield client
        finally:
            process.terminate()
            process.wait(30)


def alive(process: subprocess.Popen[bytes], port: int) -> bool:
    assert process.poll() is None, "the proxy ended"
    try:
        url = f"http://127.0.0.1:{port}/health/liveliness"
        return httpx.get(url, trust_env=False, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def watching() -> PolicySet:
    """`weapons` blocks in answers alone, and `deception` in prompts."""
    weapons, deception = policy("weapons", 9, Action.BLOCK), policy("deception", 7, Action.BLOCK)
    answers = dataclasses.replace(weapons.rules[0], phases=(Phase.RESPONSE,))
    prompts = dataclasses.replace(deception.rules[0], phases=(Phase.PROMPT,))
    found = (
        dataclasses.replace(weapons, rules=(answers,)),
        dataclasses.replace(deception, rules=(prompts,)),
    )
    return PolicySet(found, "sha256:" + "c" * 64)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    nothing = PolicySet((), "sha256:" + "d" * 64)
    with (
        serving(chosen=nothing) as upstream,
        serving(chosen=watching()) as guard,
        proxy(tmp_path_factory.mktemp("proxy"), upstream.addresses.http, guard.addresses.http) as found,
    ):
        found.guard = guard
        yield found


def chat(client, text, **fields):
    messages = [{"role": "user", "content": text}]
    return client.chat.completions.create(model="fake", messages=messages, max_tokens=6, **fields)


def test_benign_chats_pass_whole_and_streamed(client):
    assert chat(client, "one two").choices[0].message.content == "one two one two one two "
    pieces = list(chat(client, "one two", stream=True))
    assert "".join(p.choices[0].delta.content or "" for p in pieces) == "one two one two one two "
    assert client.guard.metric("requests_total", method="LiteLlmGuardrail", code="OK") >= 3


def test_an_offending_prompt_does_not_reach_the_model(client):
    with pytest.raises(openai.BadRequestError, match="violates a policy"):
        chat(client, "a lie")


def test_an_offending_answer_does_not_reach_the_caller(client):
    with pytest.raises(openai.APIStatusError, match="violates a policy"):
        chat(client, "one bomb")


def test_nothing_of_an_offending_stream_reaches_the_caller(client):
    """Some pieces of it would, were LiteLLM not told to hold streams: it asks after every fifth and at the end."""
    pieces = []
    with pytest.raises(openai.APIError, match="violates a policy"):
        pieces.extend(chat(client, "one two three four five bomb six", stream=True))
    assert not [choice for piece in pieces for choice in piece.choices if choice.delta.content]


def test_what_could_not_be_checked_is_blocked(client):
    with pytest.raises(openai.BadRequestError, match="could not be served"):
        chat(client, "sick")


def test_each_call_of_a_tool_is_checked(tmp_path):
    def made(*texts):
        return [
            {"id": f"c{n}", "type": "function", "function": {"name": "f", "arguments": json.dumps({"x": t})}}
            for n, t in enumerate(texts)
        ]

    def asked(*texts):
        said = {"role": "assistant", "content": None, "tool_calls": made(*texts)}
        done = ({"role": "tool", "tool_call_id": f"c{n}", "content": "done"} for n in range(len(texts)))
        return [{"role": "user", "content": "go"}, said, *done]

    with (
        upstream() as behind,
        serving(chosen=watching()) as guard,
        proxy(tmp_path, behind.url, guard.addresses.http) as client,
    ):

        def chat(messages):
            return client.chat.completions.create(model="fake", messages=messages, max_tokens=6)

        behind.says("", finish="tool_calls", tool_calls=made("one", "two"))
        answer = chat(asked("three", "four"))
        assert [c.function.arguments for c in answer.choices[0].message.tool_calls] == [
            '{"x": "one"}',
            '{"x": "two"}',
        ]
        with pytest.raises(openai.BadRequestError, match="violates a policy"):
            chat(asked("three", "a lie now"))
        behind.says("", finish="tool_calls", tool_calls=made("one", "a bomb now"))
        with pytest.raises(openai.APIStatusError, match="violates a policy"):
            chat(asked("three", "four"))


@pytest.mark.parametrize("fallback", ["fail_closed", "fail_open"])
def test_a_guardrail_that_hangs_blocks_unless_told_otherwise(tmp_path, fallback):
    with serving(chosen=policies()) as upstream, socket.create_server(("127.0.0.1", 0)) as hung:
        guard = f"http://127.0.0.1:{hung.getsockname()[1]}"
        url = upstream.addresses.http
        with proxy(tmp_path, url, guard, unreachable_fallback=fallback, timeout="1") as client:
            if fallback == "fail_open":
                assert chat(client, "one two").choices[0].message.content == "one two one two one two "
                return
            with pytest.raises(openai.APIStatusError):
                chat(client, "one two")


def test_a_guardrail_that_is_gone_blocks(tmp_path):
    chosen = policies()
    with serving(chosen=chosen) as upstream:
        gone = f"http://127.0.0.1:{free_port()}"
        with proxy(tmp_path, upstream.addresses.http, gone) as client, pytest.raises(openai.APIStatusError):
            chat(client, "one two")
