"""The report on feeds, on known numbers, and a short run against a real server."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace

import pytest

from monitor.bench import feeds
from monitor.bench.feeds import FeedRun, Traffic, report
from tests.http.page.conftest import faked
from tests.rpc.conftest import connected


def runs(*ratios, least=4, fired=4):
    bare = FeedRun(1.0, 1000, fired, -1, 100 << 20)
    return [(bare, FeedRun(ratio, 1000, fired, least, 100 << 20)) for ratio in ratios]


def test_the_median_of_the_rounds_decides(capsys):
    assert report(runs(1.01, 1.5, 0.99), 50, 0.02)
    said = capsys.readouterr().out
    assert "ok   processor time per token: +1.0% (-1.0% … +50.0%)" in said
    assert "4 events of 1000 tokens" in said
    assert not report(runs(1.03, 1.04, 1.0), 50, 0.02)
    assert "FAIL processor time per token: +3.0%" in capsys.readouterr().out


@pytest.mark.parametrize(("change", "said"), [({"least": 3}, "every feed"), ({"fired": 0}, "rules fired")])
def test_a_run_that_shows_nothing_fails(capsys, change, said):
    assert not report(runs(1.0, **change), 50, 0.02)
    assert f"FAIL {said}" in capsys.readouterr().out


def test_memory_that_grows_from_round_to_round_fails(capsys):
    grown = [
        (replace(bare, resident=size << 20), replace(fed, resident=size << 20))
        for size, (bare, fed) in zip((100, 101, 102), runs(1.0, 1.0, 1.0), strict=True)
    ]
    assert report(grown, 50, 0.02)
    assert "ok   memory level: 100 … 102 MB" in capsys.readouterr().out
    grown[-1] = (grown[-1][0], replace(grown[-1][1], resident=104 << 20))
    assert not report(grown, 50, 0.02)
    assert "FAIL memory level: 100 … 104 MB" in capsys.readouterr().out


def test_some_prompts_make_rules_fire_and_all_runs_have_the_same():
    traffic = Traffic(400, 1, 8, 0.1)
    asked = [traffic.prompt(number) for number in range(400)]
    assert 20 < asked.count(feeds.OFFENDING) < 60
    assert asked == [traffic.prompt(number) for number in range(400)]
    assert Traffic(1, 1, 8, 0.0).prompt(0) != feeds.OFFENDING


def test_feeds_are_read_to_the_last_event(monkeypatch):
    monkeypatch.setattr(feeds, "OFFENDING", "a lie")
    spent = iter(range(100))
    process = SimpleNamespace(
        cpu_times=lambda: SimpleNamespace(user=float(next(spent)), system=0.0),
        memory_info=lambda: SimpleNamespace(rss=1 << 20),
    )

    async def measured(page, stub):
        return [await feeds.run(process, stub, page, Traffic(6, 2, 4, 1.0), count) for count in (3, 0)]

    with faked() as page, connected(page.grpc) as channel:
        found = asyncio.run(measured(page.url.removeprefix("http://"), Stub(channel)))
    assert [one.fired for one in found] == [6, 6]
    assert [one.least for one in found] == [6, -1]
    assert all(one.complete for one in found)
    assert all(one.tokens > 0 for one in found)


class Stub:
    """The stub of a channel, whose calls are awaited on threads."""

    def __init__(self, channel):
        from monitor.v1.monitor_pb2_grpc import MonitorServiceStub

        self._stub = MonitorServiceStub(channel)

    async def Generate(self, request, timeout):  # noqa: N802  (the name of the method)
        return await asyncio.to_thread(self._stub.Generate, request, timeout=timeout)
