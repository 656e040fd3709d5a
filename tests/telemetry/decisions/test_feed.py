"""The live feed: bounded queues, what is missed, and the end."""

import asyncio
from types import SimpleNamespace

import pytest

from monitor.errors import Overloaded, Unavailable
from monitor.telemetry.decisions.feed import Feed


class Meter:
    """Counts as the real one."""

    def __init__(self):
        self.open, self.lost = [], 0

    def streams(self, count):
        self.open.append(count)

    def missed(self):
        self.lost += 1


def feed(watchers=2, queue=3):
    meter = Meter()
    return Feed(watchers, queue, 1.5, meter), meter


def record(name):
    return SimpleNamespace(name=name)


def everything(_):
    return True


async def drained(subscription):
    found = []
    while (item := await subscription.next()) is not None:
        found.append((item[0], item[1].name))
    return found


def test_everybody_gets_what_it_wants_in_order():
    made, _ = feed()

    async def talk():
        with made.subscribe(everything) as all_of_it, made.subscribe(lambda r: r.name == "b") as some:
            for seq, name in enumerate("abc", 1):
                made.publish(seq, record(name))
            made.close()
            return await drained(all_of_it), await drained(some)

    assert asyncio.run(talk()) == ([(1, "a"), (2, "b"), (3, "c")], [(2, "b")])


def test_who_reads_too_slowly_misses_the_oldest():
    made, meter = feed(queue=2)

    async def talk():
        with made.subscribe(everything) as slow:
            for seq in range(1, 6):
                made.publish(seq, record(str(seq)))
            made.close()
            return slow.dropped, await drained(slow)

    assert asyncio.run(talk()) == (3, [(4, "4"), (5, "5")])
    assert meter.lost == 3


def test_what_is_read_from_the_log_meanwhile_is_not_missed():
    made, meter = feed(queue=1)

    async def talk():
        with made.subscribe(everything) as reading:
            made.publish(1, record("1"))
            made.publish(2, record("2"))
            assert (meter.lost, reading.dropped) == (1, 1)
            reading.start_replay()
            assert reading.dropped == 0
            for seq in (3, 4, 5):
                made.publish(seq, record(str(seq)))
            assert (meter.lost, reading.dropped) == (1, 2)
            reading.stop_replay()
            made.publish(6, record("6"))
            assert meter.lost == 2
            made.close()
            return await drained(reading)

    assert asyncio.run(talk()) == [(6, "6")]


def test_whoever_waits_is_woken_by_a_record_and_by_the_end():
    made, _ = feed()

    async def talk():
        with made.subscribe(everything) as waiting:
            first = asyncio.ensure_future(waiting.next())
            await asyncio.sleep(0)
            assert not first.done()
            made.publish(1, record("a"))
            assert (await first)[0] == 1
            last = asyncio.ensure_future(waiting.next())
            await asyncio.sleep(0)
            made.close()
            assert await last is None

    asyncio.run(talk())


def test_there_are_so_many_streams_and_no_more():
    made, meter = feed(watchers=1)

    async def talk():
        full = pytest.raises(Overloaded, match="1 streams watch already")
        with made.subscribe(everything), full as caught, made.subscribe(everything):
            pass
        assert caught.value.retry_after == 1.5
        with made.subscribe(everything):
            pass
        made.close()
        with pytest.raises(Unavailable), made.subscribe(everything):
            pass

    asyncio.run(talk())
    assert meter.open == [1, 0, 1, 0]
