"""Pools of OpenMP end where they are released, and what is computed stays the same."""

import json
import os
import subprocess
import sys
import threading

import pytest

from monitor.model.compute_threads import release, released

CODE = """
import json, os, threading, torch
from monitor.model.compute_threads import release
given = torch.randn(1000000, generator=torch.Generator().manual_seed(0))
def threads():
    return len(os.listdir("/proc/self/task"))
told = {"before": threads()}
first = given.exp()
told["computing"] = threads()
told["libraries"] = release()
told["released"] = threads()
told["same"] = bool(torch.equal(first, given.exp()))
told["again"] = threads()
print(json.dumps(told))
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="threads are counted in Linux's /proc")
def test_a_released_pool_ends_and_comes_back_with_the_next_work():
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "3"},
    )
    told = json.loads(done.stdout)
    assert told["libraries"] >= 1
    assert told["computing"] == told["again"] > told["before"]
    assert told["released"] == told["before"]
    assert told["same"]


def test_it_may_be_called_anywhere_and_at_any_time():
    release()
    release()
    other = threading.Thread(target=release)
    other.start()
    other.join(10)
    assert not other.is_alive()


def test_what_was_done_is_given_and_what_it_raises_too():
    assert released(lambda: 5) == 5
    with pytest.raises(ValueError, match="no"):
        released(lambda: (_ for _ in ()).throw(ValueError("no")))
