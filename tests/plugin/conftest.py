"""vLLM, which may be absent, and one that is monitored."""

import os

import pytest

from tests.plugin.monitored import Monitored
from tests.rpc.pairs import SILENT
from tests.vllm_environment import pytest_collection_modifyitems, vllm

__all__ = ["pytest_collection_modifyitems", "vllm"]


@pytest.fixture(scope="session")
def served(vllm, tmp_path_factory):
    """Shared by all tests: vLLM and the monitor are each there once in a process."""
    made = Monitored(tmp_path_factory.mktemp("plugin"))
    made.ask(SILENT)  # which waits until the check at the start has passed
    yield made
    os.environ.pop("SAE_MONITOR_SETTINGS")
