"""The measurement of the guard: what it counts as wrong, and how it prints what is added."""

import asyncio

import pytest

from monitor.bench.guard.streams import Latencies, numbered, one_by_one, pushes, quantile, said
from monitor.http.guard.recorded import recorded
from tests.http.guard.conftest import guarding
from tests.http.guard.upstream import Upstream
from tests.rpc.fake import policies


def test_quantiles():
    assert quantile([1.0], 0.99) == 1.0
    assert quantile([float(n) for n in range(101)], 0.5) == 50.0
    assert quantile([], 0.5) != quantile([], 0.5)


def test_what_is_added_is_printed():
    bare, more = Latencies([0.01] * 3, [0.02] * 3), Latencies([0.012] * 3, [0.02] * 3, wrong=1)
    assert "+" not in bare.row("bare")
    assert "12.00 (+2.00)" in more.row("hold", bare)
    assert more.row("hold", bare).endswith("WRONG: 1")


@pytest.mark.slow
def test_streams_are_measured_and_compared():
    pieces = said(5)
    with recorded(numbered(pieces)) as (_, url):
        bare = asyncio.run(one_by_one(url, 2, pieces, guarded=False))
        assert (len(bare.first), len(bare.between), bare.wrong) == (2, 10, 0)
        assert asyncio.run(one_by_one(url, 1, said(6), guarded=False)).wrong == 1
        assert asyncio.run(one_by_one(url, 1, pieces, guarded=True)).wrong == 1
        with guarding(Upstream(url), policies()) as guard:
            through = asyncio.run(one_by_one(guard.addresses.http, 2, pieces, guarded=True))
            assert (len(through.first), through.wrong) == (2, 0)
            pushed = asyncio.run(pushes(guard.addresses.grpc, 2, pieces, 0.0))
            assert (len(pushed.first), pushed.wrong) == (2, 0)
