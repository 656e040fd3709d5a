"""The client for asyncio: the calls of the blocking one, cancelled as asyncio cancels."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from monitor.client import AsyncClient, CallFailed, Client
from monitor.client.aio import AsyncEventStream
from tests.waiting import wait_for


def test_the_calls_of_asyncio_are_the_same():
    def calls(kind):
        public = {name: value for name, value in vars(kind).items() if not name.startswith("_")}
        return {
            name: [str(parameter) for parameter in inspect.signature(value).parameters.values()]
            for name, value in public.items()
        }

    assert calls(AsyncClient) == calls(Client)


def test_asyncio(served):
    async def talk() -> None:
        async with AsyncClient(served.addresses.grpc) as client:
            await client.wait_until_connected()
            assert await client.health() == "SERVING"
            assert len((await client.policies()).policies) == 2
            assert (await client.score("they lie")).verdict.matched
            assert (await client.generate("a b", max_new_tokens=2)).text.split() == ["a", "b"]
            assert (await client.inspect("a", top_k=1)).tokens
            kinds = [e.WhichOneof("event") async for e in client.generate_stream("a b", max_new_tokens=2)]
            assert kinds[-1] == "final"
            with served.runtime.engine.stopped_behind(3):
                async with client.generate_stream("a calm day", max_new_tokens=50) as events:
                    await anext(events)
                assert [event async for event in events] == []
                await asyncio.to_thread(wait_for, lambda: served.runtime.engine.cancelled)
            with pytest.raises(CallFailed) as caught:
                await client.generate("a", clamps={99: -1.0})
            assert caught.value.violations[0].field == "generation.clamps[0].feature"
            with pytest.raises(CallFailed) as caught:
                async for _ in client.generate_stream("a", clamps={99: -1.0}):
                    pass
            assert caught.value.code == "INVALID_ARGUMENT"
            assert not (await client.reload()).changed
            async with client.watch_detections() as events:
                first = asyncio.ensure_future(anext(events))
                while not first.done():
                    await client.score("they lie")
                    await asyncio.sleep(0.01)
                assert first.result().detections

    asyncio.run(talk())
    wait_for(lambda: served.metric("requests_total", method="GenerateStream", code="CANCELLED") == 1)


def test_a_cancelled_task_is_cancelled(served):
    async def talk() -> None:
        async with AsyncClient(served.addresses.grpc) as client:
            events = client.watch_detections()
            task = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(talk())


class Call:
    """A call as `grpc.aio` gives it, over events that are known."""

    def __init__(self, *events):
        self.events, self.cancelled = list(events), 0

    def __aiter__(self):
        return self

    async def __anext__(self):
        if not self.events:
            raise StopAsyncIteration
        event = self.events.pop(0)
        if isinstance(event, BaseException):
            raise event
        return event

    def cancel(self):
        self.cancelled += 1


def test_a_stream_ends_when_it_is_cancelled_and_not_with_an_error():
    async def talk():
        call = Call("a", "b", asyncio.CancelledError())
        stream = AsyncEventStream(call)
        assert await anext(stream) == "a"
        stream.cancel()
        assert [event async for event in stream] == []
        assert call.cancelled == 1

    asyncio.run(talk())


def test_the_task_that_iterates_may_be_cancelled_itself():
    async def talk():
        stream = AsyncEventStream(Call(asyncio.CancelledError()))
        with pytest.raises(asyncio.CancelledError):
            await anext(stream)

    asyncio.run(talk())


def test_leaving_the_block_ends_the_call():
    async def talk():
        call = Call("a")
        async with AsyncEventStream(call) as stream:
            assert await anext(stream) == "a"
        assert call.cancelled == 1

    asyncio.run(talk())
