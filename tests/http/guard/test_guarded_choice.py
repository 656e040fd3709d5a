"""One answer and its texts: each is read by itself, and any of them blocks the whole."""

import asyncio

from monitor.records import Action, FinishReason
from monitor.rpc import watched_answer
from tests.http.guard.test_session import session, texts
from tests.rpc.fake import policies
from tests.rpc.test_watches import parts

FIRST, SECOND = "tool_calls[0]", "tool_calls[1]"


def test_texts_of_different_kinds_do_not_run_into_each_other() -> None:
    async def test() -> None:
        async with parts() as found, session(found, "hello") as asked:
            choice = await asked.choice(0)
            first, second, third = await choice.write(
                texts(("reasoning", "bo"), ("content", "mb"), ("content", "er"))
            )
            assert [(p.begin, p.end) for p in (first, second, third)] == [(0, 2), (3, 5), (5, 7)]
            choice.watch.settle()
            await choice.watch.caught_up()
            assert not choice.watch.blocked
            watched = await choice.conclude()
            assert watched.verdict.coverage.tokens_scored == 4  # begin of text, hello, bo, mber

    asyncio.run(asyncio.wait_for(test(), 60))


def args(which: str, text: str) -> tuple[str, str, str]:
    return f"{which}.arguments", text, which


def test_pieces_of_two_calls_in_turn_are_two_texts() -> None:
    async def test() -> None:
        async with parts() as found, session(found, "hello") as asked:
            choice = await asked.choice(0)
            written = []
            for piece in (args(FIRST, "bo"), args(SECOND, "go"), args(FIRST, "mb"), args(SECOND, "od")):
                written += await choice.write(texts(piece))
            assert [(one.begin, one.end) for one in written] == [(0, 2), (0, 2), (2, 4), (2, 4)]
            assert [text.name for text in choice.texts] == [FIRST, SECOND]
            await asked.scored()
            assert [watch.blocked for watch in choice.watches] == [True, False]
            assert [one.may_leave for one in written] == [False, True, False, True]
            assert choice.blocked
            ending = await choice.conclude()
            assert ending.verdict.action is Action.BLOCK
            assert [v.coverage.tokens_scored for v in asked.verdicts()] == [3, 3]
        assert not found.runtime.scorer.streams

    asyncio.run(asyncio.wait_for(test(), 60))


def test_a_word_that_goes_on_behind_thoughts_is_read_whole() -> None:
    async def test() -> None:
        async with parts() as found, session(found, "hello") as asked:
            choice = await asked.choice(0)
            written = await choice.write(
                texts(("content", "go bo"), ("reasoning", "fine"), ("content", "mb"))
            )
            assert [(one.begin, one.end) for one in written] == [(0, 5), (6, 10), (13, 15)]
            await asked.scored()
            assert [one.allowed for one in written] == [5, 4, 0]
            assert choice.blocked

    asyncio.run(asyncio.wait_for(test(), 60))


def test_the_first_text_is_read_by_the_watch_that_read_the_prompt() -> None:
    async def test() -> None:
        async with parts() as found, session(found, "hello") as asked:
            await asked.begin()
            choice = await asked.choice(0)
            await choice.write(texts(args(FIRST, "one")))
            assert len(found.runtime.scorer.streams) == 1
            await choice.write(texts(("content", "said"), args(SECOND, "two")))
            assert len(found.runtime.scorer.streams) == 3
            assert [text.name for text in choice.texts] == [FIRST, "", SECOND]
            assert {watch.prompt_tokens for watch in choice.watches} == {2}

    asyncio.run(asyncio.wait_for(test(), 60))


def test_an_end_that_others_have_left_behind_is_a_word_after_a_while() -> None:
    async def test() -> None:
        async with parts() as found, session(found, "hello") as asked:
            choice = await asked.choice(0)
            await choice.write(texts(args(FIRST, "bo")))
            await choice.write(texts(args(SECOND, "go")))
            choice.settle_left(60)
            assert [watch.unsettled for watch in choice.watches] == [2, 2]
            choice.settle_left(0)
            assert [watch.unsettled for watch in choice.watches] == [0, 2]

    asyncio.run(asyncio.wait_for(test(), 60))


def test_of_a_closed_choice_nothing_is_read() -> None:
    """Its other texts may be clean; their watches are concluded, and nobody waits for them."""

    async def test() -> None:
        async with parts() as found, session(found, "hello") as asked:
            choice = await asked.choice(0)
            await choice.write(texts(("content", "fine and"), args(FIRST, "bomb ")))
            choice.texts[1].watch.settle()
            await asked.caught_up([choice])
            assert choice.blocked
            await choice.conclude()
            choice.closed = True
            assert await choice.write(texts(("content", " more of it"), args(SECOND, "x"))) == []
            assert (choice.unsettled, len(choice.texts)) == (False, 2)
            await asyncio.wait_for(asked.scored(), 5)

    asyncio.run(asyncio.wait_for(test(), 60))


def test_more_texts_than_a_choice_may_have_are_not_checked(monkeypatch) -> None:
    monkeypatch.setattr(watched_answer, "_MOST_TEXTS", 2)

    async def test() -> None:
        async with parts(policies(closed=False)) as found, session(found, "hello") as asked:
            choice = await asked.choice(0)
            await choice.write(texts(*(args(f"tool_calls[{number}]", "x") for number in range(4))))
            assert len(choice.texts) == 2
            await asked.scored()
            await choice.conclude(FinishReason.STOP)
            assert asked.extension("id")["status"] == "unknown"

    asyncio.run(asyncio.wait_for(test(), 60))
