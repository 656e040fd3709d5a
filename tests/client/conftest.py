"""The servers that the client is tested against are those of `tests.rpc`."""

from tests.rpc.conftest import served as served
