"""Threads that callers share: whose turn it is, and what becomes of work whose caller has left."""

import asyncio
import threading

import pytest

from monitor.errors import Overloaded
from monitor.rpc.thread_pool import ThreadPool
from monitor.telemetry.metrics.metrics import Metrics

DEADLINE = 30.0


class Held:
    """Work that a test lets go on."""

    def __init__(self, order, name):
        self.began, self.go = threading.Event(), threading.Event()
        self._order, self._name = order, name

    def __call__(self):
        self._order.append(self._name)
        self.began.set()
        assert self.go.wait(DEADLINE)
        return self._name


def pooled(test, threads=1, waiting=8):
    """Run a test with a pool and the list of what has begun."""

    async def run():
        pool = ThreadPool("test", threads, waiting, 0.5, Metrics())
        try:
            return await asyncio.wait_for(test(pool, []), DEADLINE)
        finally:
            pool.stop()

    return asyncio.run(run())


async def begun(held):
    assert await asyncio.to_thread(held.began.wait, DEADLINE)


async def settled():
    for _ in range(5):
        await asyncio.sleep(0)


def test_callers_take_turns_however_much_one_of_them_has_sent():
    async def test(pool, order):
        first = Held(order, "first")
        tasks = [asyncio.create_task(pool.run(first, "greedy"))]
        await begun(first)
        for number in range(3):
            work = lambda n=number: order.append(f"greedy {n}")  # noqa: E731
            tasks.append(asyncio.create_task(pool.run(work, "greedy")))
        await settled()
        for name in ("one", "two"):
            tasks.append(asyncio.create_task(pool.run(lambda n=name: order.append(n), name)))
        await settled()
        first.go.set()
        await asyncio.gather(*tasks)
        return order

    assert pooled(test) == ["first", "greedy 0", "one", "two", "greedy 1", "greedy 2"]


def test_work_whose_caller_left_is_not_begun():
    async def test(pool, order):
        first = Held(order, "first")
        kept = asyncio.create_task(pool.run(first))
        await begun(first)
        left = asyncio.create_task(pool.run(lambda: order.append("left")))
        after = asyncio.create_task(pool.run(lambda: order.append("after")))
        await settled()
        left.cancel()
        first.go.set()
        await asyncio.gather(kept, after)
        return order

    assert pooled(test) == ["first", "after"]


def test_work_that_has_begun_holds_its_place_after_its_caller_left():
    """Otherwise callers who leave could have more work done at once than there are threads."""

    async def test(pool, order):
        first, second = Held(order, "first"), Held(order, "second")
        left = asyncio.create_task(pool.run(first))
        await begun(first)
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        waits = asyncio.create_task(pool.run(second))
        await settled()
        with pytest.raises(Overloaded):
            await pool.run(lambda: None)
        assert not second.began.is_set()
        first.go.set()
        await begun(second)
        second.go.set()
        return await waits

    assert pooled(test, waiting=1) == "second"


def test_one_caller_cannot_fill_the_queue():
    async def test(pool, order):
        first = Held(order, "first")
        tasks = [asyncio.create_task(pool.run(first, "greedy"))]
        await begun(first)
        tasks += [asyncio.create_task(pool.run(lambda: None, "greedy")) for _ in range(2)]
        await settled()
        with pytest.raises(Overloaded) as refused:
            await pool.run(lambda: None, "greedy")
        assert refused.value.retry_after == 0.5
        tasks += [asyncio.create_task(pool.run(lambda: None, "modest")) for _ in range(2)]
        await settled()
        with pytest.raises(Overloaded):
            await pool.run(lambda: None, "third")
        first.go.set()
        await asyncio.gather(*tasks)

    pooled(test, waiting=4)


def test_what_work_raises_its_caller_gets():
    async def test(pool, order):
        def fail():
            raise KeyError("this")

        with pytest.raises(KeyError, match="this"):
            await pool.run(fail)
        return await pool.run(lambda: 7)

    assert pooled(test) == 7


def test_stopping_drops_what_waits_and_does_not_wait_for_what_runs():
    async def test(pool, order):
        first = Held(order, "first")
        runs = asyncio.create_task(pool.run(first))
        await begun(first)
        waits = asyncio.create_task(pool.run(lambda: order.append("waits")))
        await settled()
        pool.stop()
        with pytest.raises(asyncio.CancelledError):
            await waits
        first.go.set()
        await runs
        return order

    assert pooled(test) == ["first"]
