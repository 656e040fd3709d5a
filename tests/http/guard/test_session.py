"""One request through the guard: its watches, and what is said of them."""

import asyncio
import time
from dataclasses import replace

import pytest

from monitor.guard.openai_texts import AnswerText, AnswerTexts
from monitor.http.guard.session import GuardMode, GuardSession
from monitor.records import Action
from monitor.rpc.wire.requests import Input
from monitor.telemetry.metrics.guard import WaitMetrics
from tests.rpc.fake import policies
from tests.rpc.test_watches import parts

MODE = GuardMode("sample", 7, 20.0, 0.1)


def texts(*found: tuple[str, ...]) -> AnswerTexts:
    """Of place, text, and for calls which one it is."""
    return AnswerTexts(tuple(AnswerText(*one) for one in found), 0)


def session(found, *prompts: str, each: int = 1) -> GuardSession:
    asked = [Input("prompt", text, truncate=False) for text in prompts]
    return GuardSession(found.watches, asked, MODE, WaitMetrics(), per_prompt=each, expected=5)


def test_choices_answer_the_prompts_in_order() -> None:
    async def test() -> None:
        async with parts() as found, session(found, "one", "two words", each=2) as asked:
            assert asked.count == 4
            await asked.begin()
            assert sorted(asked.choices) == [0, 2]
            assert [c.watch.prompt_tokens for c in asked.choices.values()] == [2, 3]
            assert (await asked.choice(1)).watch.prompt_tokens == 2
            assert (await asked.choice(9)).watch.prompt_tokens == 3
            assert (await asked.choice(9)) is asked.choices[9]
            assert len(found.runtime.scorer.streams) == 4
        assert not found.runtime.scorer.streams

    asyncio.run(asyncio.wait_for(test(), 60))


def test_the_extension_says_how_the_answer_was_held() -> None:
    async def test() -> None:
        async with parts() as found, session(found, "a lie", each=2) as asked:
            await asked.begin()
            other = await asked.choice(1)
            other.watch.left_unread = 12
            assert not asked.blocked
            for choice in asked.choices.values():
                await choice.conclude()
            said = asked.extension("id")
            assert (said["mode"], said["sample_tokens"], said["released_unread"]) == ("sample", 7, 12)
            assert (said["request_id"], said["action"], len(said["verdicts"])) == ("id", "suppress", 2)

    asyncio.run(asyncio.wait_for(test(), 60))


@pytest.mark.parametrize("prompt", ["fine", "a bomb"])
def test_a_session_is_blocked_where_a_prompt_is(prompt: str) -> None:
    async def test() -> None:
        async with parts() as found, session(found, "fine", prompt) as asked:
            await asked.begin()
            assert asked.blocked == (prompt != "fine")
            for choice in asked.choices.values():
                await choice.conclude()
            assert (Action.BLOCK in [v.action for v in asked.verdicts()]) == (prompt != "fine")

    asyncio.run(asyncio.wait_for(test(), 60))


def test_watches_that_hang_are_waited_for_at_once() -> None:
    """A request may have more than a hundred, and waits no longer than for one of them."""
    mode = replace(MODE, read_seconds=0.5)

    async def test() -> None:
        async with parts(policies(closed=False)) as found:
            prompts = [Input("prompt", "hello", truncate=False)] * 12
            asked = GuardSession(found.watches, prompts, mode, WaitMetrics(), per_prompt=1, expected=5)
            async with asked:
                found.runtime.scorer.gate.clear()
                begun = time.monotonic()
                await asked.begin()
                assert time.monotonic() - begun < 3
                assert {choice.watch.result for choice in asked.choices.values()} == {"not_scored"}
                found.runtime.scorer.gate.set()

    asyncio.run(asyncio.wait_for(test(), 60))


def test_answers_that_hang_are_waited_for_at_once() -> None:
    async def test() -> None:
        async with parts(policies(closed=False)) as found:
            prompt = Input("prompt", "hello", truncate=False)
            mode = replace(MODE, read_seconds=0.5)
            asked = GuardSession(found.watches, [prompt], mode, WaitMetrics(), per_prompt=12, expected=5)
            async with asked:
                for index in range(12):
                    await (await asked.choice(index)).write(texts(("content", "one two")))
                found.runtime.scorer.gate.clear()
                begun = time.monotonic()
                await asked.scored()
                assert time.monotonic() - begun < 3
                found.runtime.scorer.gate.set()

    asyncio.run(asyncio.wait_for(test(), 60))


def test_verdicts_of_further_texts_stand_behind_those_of_the_choices() -> None:
    async def test() -> None:
        async with parts() as found, session(found, "hello", each=2) as asked:
            for index in (0, 1):
                choice = await asked.choice(index)
                calls = [("t.name", f"c{number}", f"tool_calls[{number}]") for number in (0, 1)]
                await choice.write(texts(*([("content", "said")] if index else []), *calls))
            await asked.scored()
            for choice in asked.choices.values():
                await choice.conclude()
            said = [(v.get("choice"), v.get("text")) for v in asked.extension("id")["verdicts"]]
            assert said == [
                (None, "tool_calls[0]"),
                (None, None),
                (0, "tool_calls[1]"),
                (1, "tool_calls[0]"),
                (1, "tool_calls[1]"),
            ]
            assert len(asked.verdicts()) == 5

    asyncio.run(asyncio.wait_for(test(), 60))
