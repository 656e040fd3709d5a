"""What is alive when a server has started is not looked at again; what dies later is collected."""

import subprocess
import sys

CODE = """
import gc
from monitor.rpc.process.garbage import freeze_heap

class Node: pass

kept = [Node() for _ in range(100_000)]
before = len(gc.get_objects())
freeze_heap()
assert gc.get_freeze_count() >= 100_000, gc.get_freeze_count()
assert len(gc.get_objects()) < before - 100_000
one = Node()
one.itself = one
del one
assert gc.collect() >= 1
assert len(kept) == 100_000
"""


def test_a_collection_looks_only_at_what_came_since():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
