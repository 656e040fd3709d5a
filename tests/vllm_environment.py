"""vLLM for the tests that need it; they are skipped where it is not installed."""

import importlib.util
import os
import warnings
from pathlib import Path

import pytest

FOLDERS = tuple(Path(__file__).parent / name for name in ("vllm", "plugin"))
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")


def pytest_collection_modifyitems(items):
    """Warnings of vLLM's own code are not ours to answer for."""
    for item in items:
        if any(folder in item.path.parents for folder in FOLDERS):
            item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.fixture(scope="session")
def vllm():
    """What the project takes from the package; skips where it is not installed."""
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed; deploy/vllm/README.md says how to make an environment for it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import monitor.vllm.names as names
    return names
