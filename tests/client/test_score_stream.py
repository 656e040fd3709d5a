"""ScoreStream from a program: what goes in, what comes out, and how it ends."""

import asyncio
import threading

import grpc
import pytest

from monitor.client import AsyncClient, CallFailed, ScoreStream, TextPiece
from monitor.v1 import monitor_pb2 as pb
from tests.rpc.conftest import serving
from tests.rpc.fake import policies
from tests.waiting import wait_for

MESSAGES = [{"role": "user", "content": "hello there"}]


def words(*texts):
    yield from texts


def run(served, test):
    async def inside():
        async with AsyncClient(served.addresses.grpc) as client:
            await asyncio.wait_for(test(client), 60)

    asyncio.run(inside())


def test_what_may_be_shown_comes_out(client):
    with client.score_stream(MESSAGES) as stream:
        found = list(stream.released(words("öne tw", "o thr", "ee")))
    assert "".join(piece.text for piece in found) == "öne two three"
    assert stream.final.verdict.status == pb.CHECK_STATUS_CHECKED
    assert stream.final.finish_reason == pb.FINISH_REASON_STOP


def test_what_a_policy_blocks_does_not_come_out_and_nothing_more_is_taken(client, served):
    taken = []

    def endless():
        yield from ("one ", "two lie ", "bomb ", "three ")
        while True:
            taken.append(None)
            yield "more "
            threading.Event().wait(0.01)

    with client.score_stream(MESSAGES) as stream:
        text = "".join(piece.text for piece in stream.released(endless()))
        assert text.strip() == "one two lie"
        assert stream.final.finish_reason == pb.FINISH_REASON_POLICY
        assert [found.policy for found in stream.detections] == ["deception", "weapons"]
    count = len(taken)
    threading.Event().wait(0.1)
    assert len(taken) <= count + 1
    wait_for(lambda: not served.runtime.scorer.streams)


def test_pieces_keep_what_they_are_part_of(client):
    given = [TextPiece("think", "reasoning"), TextPiece("ing", "reasoning"), TextPiece("said so")]
    with client.score_stream(MESSAGES) as stream:
        found = list(stream.released(given))
    parts = {}
    for piece in found:
        parts[piece.part] = parts.get(piece.part, "") + piece.text
    assert parts == {"reasoning": "thinking", "": "said so"}


def test_a_prompt_is_known_before_anything_is_written(client):
    with client.score_stream([{"role": "user", "content": "a bomb"}]) as stream:
        assert not stream.allowed()
        assert [e.WhichOneof("event") for e in stream] == ["detection", "progress", "final"]
    with client.score_stream() as stream:
        stream.ask("user", "be ")
        stream.ask("user", "nice", settle=True)
        assert stream.allowed()
        assert [piece.text for piece in stream.released(words("yes"))] == ["yes"]
        assert stream.final.prompt_tokens == 3


def test_a_source_that_breaks_is_told_after_what_may_be_shown(client):
    def broken():
        yield "one two"
        raise ConnectionError("gone")

    found = []
    with client.score_stream(MESSAGES) as stream:
        with pytest.raises(ConnectionError):
            found.extend(stream.released(broken()))
        assert stream.final.finish_reason == pb.FINISH_REASON_ERROR
    assert "".join(piece.text for piece in found) == "one two"


def test_half_characters_are_sent_as_something_else(client):
    with client.score_stream(MESSAGES) as stream:
        assert "".join(p.text for p in stream.released(["a\ud800b"])) == "a\ufffdb"


def test_a_server_that_refuses_is_an_error(client):
    with client.score_stream(MESSAGES, labels={"1": "x"}) as stream:
        with pytest.raises(CallFailed) as failed:
            list(stream.released(words("one")))
        assert failed.value.code == "INVALID_ARGUMENT"
    with pytest.raises(ValueError, match="hold, sample or end"):
        client.score_stream(MESSAGES, holding="never")


def test_a_stream_that_is_left_early_is_over(client, served):
    with client.score_stream(MESSAGES) as stream:
        stream.push("one ")
        assert stream.allowed()
    wait_for(lambda: not served.runtime.scorer.streams)


class Stopping(grpc.RpcError):
    """The end of a call to a server that stops."""

    def code(self):
        return grpc.StatusCode.UNAVAILABLE


def test_what_ends_a_call_behind_its_verdict_changes_nothing():
    def call(messages, **_):
        yield pb.ScoreStreamResponse(final=pb.StreamFinal(answer_tokens=3))
        raise Stopping

    stream = ScoreStream(call, pb.ScoreStreamRequest())
    assert len(list(stream)) == 1
    assert stream.final.answer_tokens == 3


def test_a_stream_that_was_cancelled_allows_nothing(client):
    with client.score_stream() as stream:
        stream.cancel()
        assert not stream.allowed()


def test_the_same_for_asyncio(served):
    async def pieces(*texts):
        for text in texts:
            yield text

    async def test(client):
        async with client.score_stream(MESSAGES) as stream:
            assert await stream.allowed()
            found = [piece async for piece in stream.released(pieces("one tw", "o thr", "ee"))]
        assert "".join(piece.text for piece in found) == "one two three"
        assert stream.final.verdict.status == pb.CHECK_STATUS_CHECKED
        async with client.score_stream(MESSAGES) as stream:
            found = [piece.text async for piece in stream.released(pieces("one ", "bomb ", "two "))]
        assert "".join(found).strip() == "one"
        assert stream.final.finish_reason == pb.FINISH_REASON_POLICY

        async def broken():
            yield "one"
            raise ConnectionError("gone")

        async with client.score_stream(MESSAGES) as stream:
            with pytest.raises(ConnectionError):
                [piece async for piece in stream.released(broken())]
            assert stream.final.finish_reason == pb.FINISH_REASON_ERROR
        async with client.score_stream() as stream:
            await stream.ask("user", "so", settle=True)
            assert await stream.allowed()
            await stream.push("one", settle=True)
            await stream.end("length")
            assert [m async for m in stream][-1].final.finish_reason == pb.FINISH_REASON_LENGTH

    run(served, test)


def test_asyncio_is_told_what_is_refused():
    with serving(chosen=policies(), guard_read_seconds=1.0) as served:

        async def test(client):
            async with client.score_stream(MESSAGES) as stream:
                assert await stream.allowed()
                served.runtime.scorer.gate.clear()
                await stream.push("one two", settle=True)
                with pytest.raises(CallFailed) as failed:
                    [m async for m in stream]
                assert failed.value.code == "FAILED_PRECONDITION"
                served.runtime.scorer.gate.set()

        run(served, test)
