"""Calls of tools in a prompt: each is read as a text of its own. Answers: `tests/http/guard/test_guarded_choice.py`."""

import asyncio

import pytest

from monitor.errors import MonitoringFailed
from monitor.records import Action, FinishReason, Phase
from monitor.rpc import watched_answer
from monitor.rpc.watched_answer import PromptCalls, RequestWatches
from monitor.rpc.wire.requests import Input
from tests.rpc.fake import policies
from tests.rpc.test_watches import parts


def asked(*texts):
    return [
        Input(f"messages[{number}].tool_calls[0]", text, truncate=False) for number, text in enumerate(texts)
    ]


def read(*texts, chosen=None):
    """What became of these calls, and how many requests were still open behind them."""

    async def test():
        async with parts(chosen) as found, RequestWatches(found.watches, "hold", 20.0) as watches:
            calls = PromptCalls(watches, asked(*texts))
            await calls.read()
            return calls, len(found.runtime.scorer.streams)

    return asyncio.run(asyncio.wait_for(test(), 60))


def test_each_call_is_a_text_of_the_prompt():
    calls, left = read("go home", "a lie there")
    assert (bool(calls), calls.blocked, calls.result, left) == (True, False, "passed", 0)
    assert [found.name for found in calls.verdicts] == [
        "messages[0].tool_calls[0]",
        "messages[1].tool_calls[0]",
    ]
    verdicts = [found.ending.verdict for found in calls.verdicts]
    assert [v.coverage.tokens_scored for v in verdicts] == [3, 4]
    assert [v.action for v in verdicts] == [Action.ALLOW, Action.SUPPRESS]
    assert {score.phase for v in verdicts for score in v.scores} == {Phase.PROMPT}
    assert not PromptCalls(None, ())


def test_the_same_call_again_is_read_once():
    calls, _ = read("one", "two", "one")
    assert [found.name for found in calls.verdicts] == [
        "messages[0].tool_calls[0]",
        "messages[1].tool_calls[0]",
    ]


def test_nothing_is_read_behind_a_call_that_is_blocked(monkeypatch):
    monkeypatch.setattr(watched_answer, "_AT_ONCE", 2)
    calls, _ = read("one", "a bomb", "three")
    assert (calls.blocked, calls.result) == (True, "blocked")
    assert [found.blocked for found in calls.verdicts] == [False, True]


def test_a_call_that_cannot_be_read_is_not_clean():
    with pytest.raises(MonitoringFailed):
        read("sick")
    calls, _ = read("sick", chosen=policies(closed=False))
    assert calls.verdicts[0].ending.verdict.status.value == "unknown"


def test_each_has_a_request_id_of_its_own_and_the_mode_of_the_request():
    async def test():
        async with parts() as found, RequestWatches(found.watches, "end", 20.0) as watches:
            opened = [await watches.open(one) for one in asked("a", "b")]
            assert {one.watch.mode for one in opened} == {"end"}
            assert sorted(found.runtime.scorer.streams) == ["request", "request-1"]
            for watch, stack in opened:
                await watch.prompt()
                watch.conclude(FinishReason.STOP)
                await stack.aclose()

    asyncio.run(asyncio.wait_for(test(), 60))
