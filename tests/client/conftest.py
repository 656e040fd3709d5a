"""The servers that the client is tested against are those of `tests.rpc`."""

from __future__ import annotations

import pytest

from monitor.client import connect
from tests.rpc.conftest import served as served


@pytest.fixture
def client(served):
    with connect(served.addresses.grpc) as connected:
        yield connected
