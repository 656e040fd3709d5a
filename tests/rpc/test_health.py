"""What the metric of health says of a server that drains, while it is still looked at."""

from __future__ import annotations

import asyncio

import pytest

from tests.rpc.conftest import DEADLINE, serving
from tests.rpc.test_server import NOT_SERVING, health
from tests.waiting import wait_for


@pytest.mark.slow
def test_a_server_that_drains_does_not_count_as_serving():
    looks = []

    def healthy():
        looks.append(True)
        return True

    with serving() as served:
        assert served.metric("serving") == 1
        served.runtime.engine.healthy = healthy
        draining = served.server._health.drain()  # as `Server.stop` begins
        asyncio.run_coroutine_threadsafe(draining, served.server._watching.get_loop()).result(DEADLINE)
        before = len(looks)
        wait_for(lambda: len(looks) >= before + 3, 30)
        assert health(served) == NOT_SERVING
        assert served.metric("serving") == 0, "the same as callers are told"
