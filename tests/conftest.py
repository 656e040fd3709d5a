"""What every test may ask for: the folder of external corpora, and one thread of computation per worker."""

import os
from pathlib import Path

THREADS = os.environ.get("MONITOR_TEST_THREADS", "1")
# Read when NumPy and SciPy are first imported, here, in workers, and in the servers that tests start. Threads of theirs
# wait for each other by spinning: fits of small arrays cost four times the processor time with two.
os.environ.setdefault("OMP_NUM_THREADS", THREADS)

import psutil  # noqa: E402
import pytest  # noqa: E402

WORKER_BYTES = 3 << 30
"""Memory for a worker and the servers that its tests start."""


def pytest_xdist_auto_num_workers() -> int:
    """What `-n auto` means: three workers for two cores, because tests wait for other processes much of the time."""
    cores = len(os.sched_getaffinity(0))
    return max(1, min(cores + cores // 2, psutil.virtual_memory().available // WORKER_BYTES))


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The external corpora, from MONITOR_TEST_DATA or beside the checkout; skips where they are absent."""
    folder = Path(os.environ.get("MONITOR_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "corpus").is_dir():
        pytest.skip(f"no corpora at {folder}: set MONITOR_TEST_DATA to a folder with corpus/ and labelled/")
    return folder


@pytest.fixture(scope="session", autouse=True)
def few_threads() -> None:
    """Small tensors gain nothing from many threads, and workers of xdist would fight for the cores."""
    import torch

    torch.set_num_threads(int(THREADS))


@pytest.fixture(scope="session", autouse=True)
def tiny_by_default() -> None:
    """Tests that name no pair take the one that needs nothing else, whichever pair users get by default."""
    from monitor.pairs import registry

    registry.DEFAULT = "tiny"


@pytest.fixture(scope="session", autouse=True)
def state_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Servers on ports of their own keep a decision log: not among the logs of whoever runs the tests."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))
