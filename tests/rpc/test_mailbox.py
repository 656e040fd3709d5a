import asyncio
import threading

import pytest

from monitor.errors import Unavailable
from monitor.rpc.mailbox import Mailbox, PostOffice

GONE = Unavailable("gone")


def test_a_reader_gets_all_that_came_in_order():
    async def run():
        box = Mailbox()
        box.put("a")
        box.put("b")
        first = await box.read()
        box.put("c")
        return first, await box.read()

    assert asyncio.run(run()) == (["a", "b"], ["c"])


def test_a_reader_waits_until_something_comes():
    async def run():
        box = Mailbox()
        reading = asyncio.ensure_future(box.read())
        await asyncio.sleep(0)
        waited = not reading.done()
        box.put("a")
        return waited, await reading

    assert asyncio.run(run()) == (True, ["a"])


def test_an_error_comes_after_the_rest_and_stays():
    async def run():
        box = Mailbox()
        box.put("a")
        box.fail(GONE)
        rest = await box.read()
        for _ in range(2):
            with pytest.raises(Unavailable, match="gone"):
                await box.read()
        return rest

    assert asyncio.run(run()) == ["a"]


def test_an_error_wakes_a_reader_that_waits():
    async def run():
        box = Mailbox()
        reading = asyncio.ensure_future(box.read())
        await asyncio.sleep(0)
        box.fail(GONE)
        with pytest.raises(Unavailable, match="gone"):
            await reading

    asyncio.run(run())


def test_what_a_pass_has_reaches_each_request_from_another_thread():
    async def run():
        office = PostOffice(asyncio.get_running_loop())
        with office.box("a") as first, office.box("b") as second:
            items = [("a", 1), ("b", 2), ("nobody", 3), ("a", 4)]
            thread = threading.Thread(target=office.deliver, args=(items,))
            thread.start()
            found = await first.read(), await second.read()
            thread.join()
        return found

    assert asyncio.run(run()) == ([1, 4], [2])


def test_a_request_that_ended_gets_nothing_more():
    async def run():
        office = PostOffice(asyncio.get_running_loop())
        with office.box("a") as left:
            pass
        with office.box("b") as other:
            office.deliver([("a", 1), ("b", 2)])
            found = await other.read()
        left.fail(GONE)
        with pytest.raises(Unavailable):
            await left.read()
        return found

    assert asyncio.run(run()) == [2]


def test_everybody_who_waits_is_told_of_a_failure():
    async def run():
        office = PostOffice(asyncio.get_running_loop())
        with office.box("a") as first, office.box("b") as second:
            office.fail_all(GONE)
            for box in (first, second):
                with pytest.raises(Unavailable, match="gone"):
                    await box.read()

    asyncio.run(run())


def test_a_loop_that_has_ended_has_nobody_left_to_read():
    async def opened():
        return PostOffice(asyncio.get_running_loop())

    asyncio.run(opened()).deliver([("a", 1)])
