"""Watches: how much of another server's answer may leave, and what is said of it, without a door in front."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from monitor.errors import MonitoringFailed, Overloaded, Unavailable
from monitor.model.engine.requests import StreamRead
from monitor.policy.policyset import PolicySet
from monitor.records import Action, Coverage, Failure, FinishReason, Phase, Status
from monitor.rpc.access.call_interceptor import Call, enter
from monitor.rpc.mailbox import Mailbox
from monitor.rpc.server import Server
from monitor.rpc.watches import AnswerWatch, Watches
from monitor.rpc.wire.requests import Input
from tests.rpc.conftest import settings
from tests.rpc.fake import FakeRuntime, policies, policy


class Parts:
    """The insides of a server that has started, on this event loop."""

    def __init__(self, server: Server, runtime: FakeRuntime) -> None:
        self.server, self.runtime = server, runtime
        self.watches = Watches(runtime, server._active, server._calls, server._metrics, server.runs)

    def open(self, content: object = "hello there", seconds: float = 20.0, **options: object):
        number = options.pop("number", 0)
        asked = Input("messages", content, truncate=False, **options)  # type: ignore[arg-type]
        return self.watches.open(asked, seconds=seconds, expected=10, number=number)


@asynccontextmanager
async def parts(
    chosen: PolicySet | None = None, context: int = 64, **changes: object
) -> AsyncIterator[Parts]:
    chosen = chosen or policies()
    runtime = FakeRuntime(chosen.watch, context)
    server = Server(settings(**changes), runtime, chosen)
    await server.start()
    enter(Call("Watch", "request", 0.0))
    try:
        yield Parts(server, runtime)
    finally:
        await server.stop(1)


async def broken(found: Parts) -> None:
    async with found.open(number=2) as watch:
        await watch.prompt()
        raise RuntimeError("the upstream server broke")


def run(test) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


async def wrote(watch: AnswerWatch, *pieces: str) -> None:
    for piece in pieces:
        watch.write(piece)
    watch.settle()
    await watch.caught_up()


def test_text_may_leave_once_it_was_read() -> None:
    async def test() -> None:
        async with parts() as found, found.open() as watch:
            await watch.prompt()
            found.runtime.scorer.gate.clear()
            watch.write("one two thr")
            assert (watch.written, watch.allowed, watch.unsettled) == (11, 0, 4)
            found.runtime.scorer.gate.set()
            await watch.caught_up()
            assert watch.allowed == 7
            watch.write("ee")
            watch.settle()
            await watch.caught_up()
            assert watch.allowed == 13
            assert watch.tokens == 3
            watch.released(13, "one two three")
            ended = watch.conclude(FinishReason.STOP)
        assert (ended.verdict.status, ended.verdict.coverage.tokens_scored) == (Status.CHECKED, 6)

    run(test)


def test_text_up_to_the_token_that_a_rule_blocks_may_leave() -> None:
    async def test() -> None:
        async with parts() as found, found.open() as watch:
            await watch.prompt()
            await wrote(watch, "one two bomb three ")
            assert watch.blocked
            assert watch.allowed == 7
            watch.released(watch.allowed, "one two")
            assert found.runtime.scorer.streams
            ended = watch.conclude(FinishReason.STOP)
            (detection,) = ended.verdict.detections
            assert (detection.phase, detection.action) == (Phase.RESPONSE, Action.BLOCK)
            assert [token.text for token in detection.evidence] == [""]  # which did not leave
            assert [d.policy for d in watch.news()] == ["weapons"]
            assert watch.news() == ()
        assert not found.runtime.scorer.streams

    run(test)


def test_a_character_that_a_rule_blocks_at_its_last_token_does_not_leave() -> None:
    """A character may be several tokens, of which the last one is the reason."""

    async def test() -> None:
        async with parts() as found, found.open() as watch:
            tokenise = found.runtime.placed_behind

            def in_bytes(token: int, text: str) -> tuple[list[int], list[tuple[int, int]]]:
                ids, spans = tokenise(token, text.replace("\N{BOMB}", "x"))
                (bomb,), _ = tokenise(token, "bomb")
                return [*ids, bomb], [*spans, spans[-1]]

            found.runtime.placed_behind = in_bytes  # type: ignore[method-assign]
            await watch.prompt()
            await wrote(watch, "one \N{BOMB}")
            assert watch.blocked
            assert watch.allowed == 3

    run(test)


def test_a_prompt_that_is_blocked() -> None:
    async def test() -> None:
        async with (
            parts(PolicySet((policy("w", 9, Action.BLOCK, refusal="No."),), "sha256:" + "e" * 64)) as found,
            found.open("a bomb") as watch,
        ):
            await watch.prompt()
            assert watch.blocked
            assert watch.allowed == 0
            ended = watch.conclude(FinishReason.POLICY)
        assert (ended.verdict.action, ended.refusal) == (Action.BLOCK, "No.")

    run(test)


@pytest.mark.parametrize("closed", [True, False])
def test_what_takes_too_long_counts_as_not_scored(closed: bool) -> None:
    async def test() -> None:
        async with parts(policies(closed=closed)) as found, found.open(seconds=0.1) as watch:
            await watch.prompt()
            found.runtime.scorer.gate.clear()
            await wrote(watch, "one two")
            found.runtime.scorer.gate.set()
            assert watch.blocked == closed
            assert watch.allowed == (0 if closed else 7)
            watch.write(" three")
            assert watch.allowed == (0 if closed else 13)
            if closed:
                with pytest.raises(MonitoringFailed):
                    watch.conclude(FinishReason.STOP)
            else:
                verdict = watch.conclude(FinishReason.STOP).verdict
                assert (verdict.status, verdict.failure) == (Status.UNKNOWN, Failure.INCOMPLETE)

    run(test)


def test_an_answer_that_outgrows_the_model() -> None:
    async def test() -> None:
        async with parts(policies(closed=False)) as found, found.open() as watch:
            found.runtime.scorer.longest_stream = 5
            await watch.prompt()
            await wrote(watch, "one two ", "three four")
            assert watch.allowed == 18
            assert watch.conclude(FinishReason.STOP).verdict.failure is Failure.INCOMPLETE

    run(test)


def test_what_is_no_text_is_told() -> None:
    async def test() -> None:
        async with parts(policies(closed=False)) as found, found.open() as watch:
            await watch.prompt()
            watch.unreadable()
            assert watch.conclude(FinishReason.STOP).verdict.failure is Failure.LEFT_OUT
        async with parts() as found:
            with pytest.raises(MonitoringFailed):
                async with found.open(unread=1):
                    raise AssertionError("an image was let through")

    run(test)


def test_a_prompt_that_is_too_long_is_cut_and_not_clean() -> None:
    async def test() -> None:
        async with parts(policies(closed=False)) as found, found.open(" ".join("abcdefgh" * 20)) as watch:
            await watch.prompt()
            verdict = watch.conclude(FinishReason.STOP).verdict
            assert verdict.status is Status.UNKNOWN
            assert verdict.coverage.tokens_truncated == 161 - 32

    run(test)


def test_the_engine_dies() -> None:
    async def test() -> None:
        async with parts(policies(closed=False)) as found, found.open() as watch:
            await watch.prompt()
            found.runtime.scorer.gate.clear()
            watch.write("one two ")
            watch.settle()
            found.server._calls.fail_all(Unavailable("the engine does not run"))
            await watch.caught_up()
            assert watch.conclude(FinishReason.STOP).verdict.failure is Failure.PASS_FAILED
            found.runtime.scorer.gate.set()

    run(test)


def test_there_is_no_room_for_another() -> None:
    async def test() -> None:
        async with parts() as found:
            found.runtime.scorer.capacity = 0
            with pytest.raises(Overloaded):
                async with found.open():
                    raise AssertionError("there was room")
            assert found.runtime.leases >= 0

    run(test)


def test_each_answer_has_a_record_that_says_how_it_was_held(tmp_path) -> None:
    async def test() -> None:
        log = {"decision_log": str(tmp_path), "decision_log_records": "all"}
        async with parts(**log) as found:
            for number, mode in enumerate(("hold", "end")):
                async with found.open(number=number) as watch:
                    watch.mode = mode
                    await watch.prompt()
                    await wrote(watch, "one two")
                    watch.released(7, "one two")
                    watch.conclude(FinishReason.LENGTH)
            with pytest.raises(RuntimeError):
                await broken(found)

    run(test)
    records = [
        record
        for path in sorted(tmp_path.glob("*.jsonl*"))
        for line in path.read_text("utf-8").splitlines()
        if (record := json.loads(line)).get("kind") == "decision"
    ]
    assert [record["request_id"] for record in records] == ["request", "request-1", "request-2"]
    assert [record.get("mode") for record in records] == ["hold", "end", None]
    assert [record["outcome"] for record in records] == ["answered", "answered", "failed"]
    assert [record.get("finish") for record in records] == ["length", "length", None]
    assert records[0]["tokens_generated"] == 2


def test_a_long_text_is_tokenised_no_further_than_the_model_reads() -> None:
    async def test() -> None:
        async with parts(policies(closed=False)) as found, found.open() as watch:
            found.runtime.scorer.longest_stream = 10
            sizes: list[int] = []
            tokenise = found.runtime.placed_behind

            def counted(token: int, text: str):
                sizes.append(len(text))
                return tokenise(token, text)

            found.runtime.placed_behind = counted  # type: ignore[method-assign]
            await watch.prompt()
            watch.write("word " * 100_000)
            assert sum(sizes) < 10_000
            assert watch.written == watch.allowed == 500_000
            assert watch.scored == 0
            assert not found.runtime.scorer.streams  # which is not read any further
            assert watch.conclude(FinishReason.STOP).verdict.failure is Failure.INCOMPLETE

    run(test)


def test_a_text_that_is_read_slowly_is_read() -> None:
    """The time without any progress is limited, not the whole."""

    async def test() -> None:
        async with parts() as found, found.open(seconds=0.5) as watch:
            await watch.prompt()
            scorer = found.runtime.scorer
            scorer.gate.clear()
            watch.write("one two")
            watch.settle()
            box: Mailbox[StreamRead] = Mailbox()
            watch.read_from(box)
            waiting = asyncio.create_task(watch.caught_up())
            for _ in range(5):
                await asyncio.sleep(0.2)
                box.put(StreamRead(Coverage(3, 3), Action.ALLOW))
            assert not waiting.done()
            box.put(StreamRead(Coverage(5, 5), Action.ALLOW))
            await waiting
            assert watch.allowed == 7
            scorer.gate.set()

    run(test)


@pytest.mark.parametrize(
    ("deadlines", "wait", "blocked"),
    [
        ({"a": (0.1, True), "b": (30.0, False)}, True, True),
        ({"a": (0.1, False), "b": (None, True)}, False, False),
        ({"a": (0.1, False), "b": (0.2, False)}, True, False),
        ({"a": (0.1, False), "b": (None, False)}, False, False),
    ],
)
def test_the_deadlines_of_policies(
    deadlines: dict[str, tuple[float | None, bool]], wait: bool, blocked: bool
) -> None:
    """Whether text stops waiting within a second, and whether it is withheld then."""
    chosen = PolicySet(
        tuple(
            policy(name, 9, Action.BLOCK, deadline=deadline, closed=closed)
            for name, (deadline, closed) in deadlines.items()
        ),
        "sha256:" + "e" * 64,
    )

    async def test() -> None:
        async with parts(chosen) as found, found.open() as watch:
            await watch.prompt()
            found.runtime.scorer.gate.clear()
            watch.write("one two")
            watch.settle()
            waiting = asyncio.create_task(watch.caught_up())
            done, _ = await asyncio.wait([waiting], timeout=1)
            assert bool(done) == wait
            assert watch.blocked == blocked
            found.runtime.scorer.gate.set()
            await waiting

    run(test)
