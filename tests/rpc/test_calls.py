import asyncio
from types import SimpleNamespace

import pytest

from monitor.errors import Overloaded, Unavailable
from monitor.rpc.calls import Calls
from monitor.telemetry.metrics.metrics import Metrics
from tests.telemetry.metrics.measured import value


class Worker:
    """Stands in for engine and scorer: keeps what it was given, or turns it away."""

    def __init__(self, error=None):
        self.error = error
        self.taken, self.cancelled = {}, []

    def submit(self, job, done):
        if self.error is not None:
            raise self.error
        self.taken[job.request_id] = done

    def cancel(self, request_id):
        self.cancelled.append(request_id)


KINDS = ["generation", "scoring"]


def opened(kind, error=None):
    """Calls, the worker that they are for, and the metrics; the other worker turns everything away."""
    worker, other, metrics = Worker(error), Worker(KeyError("wrong worker")), Metrics()
    engine, scorer = (worker, other) if kind == "generation" else (other, worker)
    calls = Calls(SimpleNamespace(engine=engine, scorer=scorer), metrics)
    return getattr(calls, kind), calls, worker, metrics


def job(name="a"):
    return SimpleNamespace(request_id=name)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_worker_has_to_say_is_read_from_the_box(kind):
    async def run():
        begin, _, worker, _ = opened(kind)
        with begin(job("a")) as first, begin(job("b")) as second:
            worker.taken["a"]([("a", 1), ("b", 2)])
            found = await first.read(), await second.read()
        return found, worker.cancelled

    assert asyncio.run(run()) == (([1], [2]), [])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [asyncio.CancelledError, KeyError])
def test_leaving_by_an_exception_ends_the_work(kind, error):
    async def run():
        begin, _, worker, _ = opened(kind)
        with pytest.raises(error), begin(job()):
            raise error
        return worker.cancelled

    assert asyncio.run(run()) == ["a"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("error", "reason"), [(Overloaded("full", 1.0), "queue"), (Unavailable("gone"), "engine")]
)
def test_what_is_turned_away_is_counted_and_nothing_is_cancelled(kind, error, reason):
    async def run():
        begin, calls, worker, metrics = opened(kind, error)
        with pytest.raises(type(error)), begin(job()):
            pytest.fail("it was turned away")
        assert worker.cancelled == []
        assert value(metrics, "rejected_requests_total", reason=reason) == 1
        worker.error = None
        with begin(job()) as box:
            calls.fail_all(Unavailable("over"))
            with pytest.raises(Unavailable, match="over"):
                await box.read()

    asyncio.run(run())


def test_everybody_who_waits_is_told_that_nothing_more_comes():
    async def run():
        worker = Worker()
        calls = Calls(SimpleNamespace(engine=worker, scorer=worker), Metrics())
        calls.fail_all(Unavailable("nobody waits yet"))
        with calls.generation(job("a")) as first, calls.scoring(job("b")) as second:
            calls.fail_all(Unavailable("over"))
            for box in (first, second):
                with pytest.raises(Unavailable, match="over"):
                    await box.read()

    asyncio.run(run())
