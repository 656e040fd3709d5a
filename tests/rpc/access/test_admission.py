import asyncio
import time
from contextlib import ExitStack

import pytest

from monitor.errors import Overloaded, Unavailable
from monitor.rpc.access.admission import Admission
from monitor.telemetry.metrics.metrics import Metrics
from tests.telemetry.metrics.measured import value


@pytest.fixture
def metrics():
    return Metrics()


def refused(metrics, reason):
    return value(metrics, "rejected_requests_total", reason=reason)


def entered(admission):
    with admission.call():
        return True


def test_calls_up_to_the_limit_are_let_in_and_their_places_are_given_back(metrics):
    admission = Admission(2, 0.5, metrics)
    with admission.call():
        with admission.call(), pytest.raises(Overloaded, match="2 calls are in progress") as caught:
            entered(admission)
        assert entered(admission)
    assert caught.value.retry_after == 0.5
    assert refused(metrics, "calls") == 1


def test_a_call_that_fails_gives_its_place_back(metrics):
    admission = Admission(1, 0.5, metrics)
    with pytest.raises(KeyError), admission.call():
        raise KeyError("x")
    assert entered(admission)


def test_calls_are_refused_while_memory_is_short(metrics):
    short = [True]
    admission = Admission(2, 0.5, metrics, lambda: short[0])
    with pytest.raises(Overloaded, match="no memory"):
        entered(admission)
    short[0] = False
    assert entered(admission)
    assert refused(metrics, "memory") == 1


def test_once_it_drains_nobody_comes_in_and_it_ends_with_the_last_call(metrics):
    async def run():
        admission, inside = Admission(2, 0.5, metrics), ExitStack()
        inside.enter_context(admission.call())
        draining = asyncio.ensure_future(admission.drain(60.0))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="shutting down"):
            entered(admission)
        waits = not draining.done()
        inside.close()
        return waits, await draining

    assert asyncio.run(run()) == (True, True)
    assert refused(metrics, "draining") == 1


def test_with_nobody_inside_there_is_nothing_to_wait_for(metrics):
    began = time.monotonic()
    assert asyncio.run(Admission(2, 0.5, metrics).drain(60.0))
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("hurried", [False, True])
def test_it_ends_without_the_last_call_after_its_grace_or_in_a_hurry(metrics, hurried):
    async def run():
        admission = Admission(2, 0.5, metrics)
        with admission.call():
            draining = asyncio.ensure_future(admission.drain(60.0 if hurried else 0.01))
            await asyncio.sleep(0)
            if hurried:
                admission.hurry()
            return await draining

    assert asyncio.run(run()) is False
