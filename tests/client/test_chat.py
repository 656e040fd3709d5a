"""Chats through a server of the OpenAI API, monitored by another one."""

import asyncio
import re
from pathlib import Path

import openai
import pytest

from monitor.client import AsyncChatMonitor, AsyncClient, CallFailed, ChatMonitor
from monitor.v1 import monitor_pb2 as pb
from tests.http.guard.upstream import chunk, streamed, upstream
from tests.rpc.conftest import DEADLINE
from tests.waiting import wait_for

ASKED = [{"role": "user", "content": "hello there"}]
OPTIONS = {"api_key": "none", "max_retries": 0, "timeout": DEADLINE}


@pytest.fixture(scope="module")
def behind():
    with upstream() as found:
        yield found


@pytest.fixture
def chat(client, behind):
    with openai.OpenAI(base_url=f"{behind.url}/v1", **OPTIONS) as found:
        yield ChatMonitor(client, found)


def test_a_chat_is_scored_while_it_is_written(chat, behind):
    behind.streams(["one tw", "o thr", "ee"], finish="length")
    with chat.stream(ASKED, model="up", max_tokens=9) as answer:
        assert "".join(piece.text for piece in answer) == "one two three"
    assert answer.ending.finish_reason == "length"
    assert answer._scores.final.finish_reason == pb.FINISH_REASON_LENGTH
    assert answer.ending.verdict.status == pb.CHECK_STATUS_CHECKED
    assert behind.asked[-1].json["max_tokens"] == 9
    behind.streams(["fine"], finish="tool_calls")
    found = chat.create(ASKED, model="up")
    assert (found.text, found.ending.finish_reason) == ("fine", "tool_calls")


def test_a_chat_ends_before_what_a_policy_blocks_and_the_server_is_told(chat, behind):
    def script(reply):
        reply.stream()
        for word in ("one ", "bomb ", "two ", "three "):
            reply.event(chunk({"content": word}))
        while not reply.closed(0.05):
            reply.event(chunk({"content": "more "}))
        told.append(True)

    told = []
    behind.gone.clear()
    behind.script = script
    found = chat.create(ASKED, model="up")
    assert (found.text.strip(), found.ending.finish_reason) == ("one", "content_filter")
    assert found.ending.verdict.action == pb.ACTION_BLOCK
    wait_for(lambda: told == [True] or behind.gone.is_set())


def test_a_prompt_that_is_blocked_is_never_asked(chat, behind):
    before = len(behind.asked)
    found = chat.create([{"role": "user", "content": "a bomb"}], model="up")
    assert (found.text, found.ending.finish_reason) == ("", "content_filter")
    assert len(behind.asked) == before


def test_thoughts_and_calls_are_scored_as_parts_of_their_own(chat, behind):
    def script(reply):
        reply.stream()
        reply.event(chunk({"reasoning_content": "think"}))
        reply.event(chunk({"content": "say"}))
        reply.event(chunk({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{}"}}]}))
        reply.event(chunk({}, "tool_calls"))
        reply.chunk(b"data: [DONE]\n\n")
        reply.end()

    behind.script = script
    found = chat.create(ASKED, model="up")
    called = {"tool_calls[0].name": "f", "tool_calls[0].arguments": "{}"}
    assert (found.text, found.parts) == ("say", {"reasoning_content": "think"} | called)
    assert [text.call for text in found.ending.texts] == ["", "tool_calls[0]"]


def test_calls_of_earlier_answers_are_scored_each_by_itself(chat, behind):
    def talk(*texts):
        calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": t}} for t in texts]
        return [*ASKED, {"role": "assistant", "content": None, "tool_calls": calls}]

    behind.streams(["fine"])
    found = chat.create(talk("one", "a lie"), model="up")
    assert found.text == "fine"
    assert [text.call for text in found.ending.texts] == [
        "",
        "messages[1].tool_calls[0]",
        "messages[1].tool_calls[1]",
    ]
    assert found.ending.verdict.action == pb.ACTION_SUPPRESS
    before = len(behind.asked)
    found = chat.create(talk("one", "a bomb"), model="up")
    assert (found.text, found.ending.finish_reason) == ("", "content_filter")
    assert len(behind.asked) == before


def test_a_server_that_breaks_is_an_error_behind_what_may_be_shown(chat, behind):
    def script(reply):
        reply.stream()
        reply.event(chunk({"content": "one two "}))
        reply.end()

    behind.script = script
    shown = []
    with chat.stream(ASKED, model="up") as answer:
        with pytest.raises(ConnectionError):
            shown.extend(piece.text for piece in answer)
        assert answer.ending.finish_reason == "error"
    assert "".join(shown) == "one two "


def test_what_cannot_be_monitored_is_refused(chat):
    for several in ({"n": 2}, {"extra_body": {"n": 2}}):
        with pytest.raises(ValueError, match="several answers"):
            chat.create(ASKED, model="up", **several)
    with pytest.raises(ValueError, match="no text"):
        chat.create([{"role": "user", "content": ""}], model="up")
    image = [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    with pytest.raises(CallFailed, match="FAILED_PRECONDITION"):
        chat.create([{"role": "user", "content": image}], model="up")


def test_options_of_all_chats_do_not_hide_what_cannot_be_read(client, chat):
    lenient = ChatMonitor(client, chat._upstream, unread=0)
    image = [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    with pytest.raises(CallFailed, match="FAILED_PRECONDITION"):
        lenient.create([{"role": "user", "content": image}], model="up")


def test_a_chat_that_is_left_early_leaves_nothing_running(served, behind):
    def script(reply):
        reply.stream()
        for word in ("one ", "two ", "three "):
            reply.event(chunk({"content": word}))
        reply.closed()

    async def test():
        async with (
            AsyncClient(served.addresses.grpc) as client,
            openai.AsyncOpenAI(base_url=f"{behind.url}/v1", **OPTIONS) as theirs,
        ):
            behind.script = script
            async with AsyncChatMonitor(client, theirs).stream(ASKED, model="up") as answer:
                async for _ in answer:
                    break
            ours = [t for t in asyncio.all_tasks() if "released" in repr(t.get_coro())]
            assert not ours

    asyncio.run(asyncio.wait_for(test(), 60))
    wait_for(lambda: not served.runtime.scorer.streams)


def test_the_same_for_asyncio(served, behind):
    async def test():
        async with (
            AsyncClient(served.addresses.grpc) as client,
            openai.AsyncOpenAI(base_url=f"{behind.url}/v1", **OPTIONS) as theirs,
        ):
            chat = AsyncChatMonitor(client, theirs)
            behind.script = streamed(["one tw", "o three"])
            found = await chat.create(ASKED, model="up")
            assert (found.text, found.ending.finish_reason) == ("one two three", "stop")
            behind.script = streamed(["one ", "bomb ", "two "])
            found = await chat.create(ASKED, model="up")
            assert (found.text.strip(), found.ending.finish_reason) == ("one", "content_filter")
            found = await chat.create([{"role": "user", "content": "bomb"}], model="up")
            assert (found.text, found.ending.finish_reason) == ("", "content_filter")

    asyncio.run(asyncio.wait_for(test(), 60))


@pytest.mark.parametrize(("said", "shown"), [("one two three", "one two three"), ("one bomb more", "one")])
def test_the_program_in_the_deployment_guide_runs(served, behind, capsys, said, shown):
    text = (Path(__file__).parents[2] / "deploy" / "README.md").read_text("utf-8")
    (code,) = re.findall(r"^```python\n(from openai.*?)^```", text, re.M | re.S)
    code = code.replace("127.0.0.1:50051", served.addresses.grpc).replace("http://127.0.0.1:8000", behind.url)
    behind.streams([said[:5], said[5:]])
    exec(compile(code, "deploy/README.md", "exec"), {})
    answer, ending = capsys.readouterr().out.splitlines()[:2]
    assert answer.rstrip() == shown
    assert ending == ("stop False" if shown == said else "content_filter True")
