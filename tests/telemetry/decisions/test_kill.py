"""kill -9 at any point: nothing that a caller was told is lost, and nothing torn is read."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from monitor.telemetry.decisions.folder import segments
from monitor.telemetry.decisions.reader import read, verify
from tests.children import ending
from tests.telemetry.decisions.logs import tape

KILLS = 200
ROOT = Path(__file__).parents[3]


@contextmanager
def nursery(folder):
    """A process that forks writers when asked."""
    command = [sys.executable, "-m", "tests.telemetry.decisions.killed", str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with ending(subprocess.Popen(command, text=True, cwd=ROOT, **pipes)) as process:
        yield process
        process.stdin.close()
        assert process.wait(60) == 0


def killed_after(process, run, seconds, wait):
    """Have a writer born, kill it so long after its birth or its first record, and give what it said in between."""
    process.stdin.write(f"{run}\n")
    process.stdin.flush()
    said, child = [], 0
    while not child:
        word, _, rest = process.stdout.readline().rstrip().partition(" ")
        child = int(rest) if word == "born" else said.append(word) or 0
    if wait and not said:
        said.append(process.stdout.readline().rstrip())
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    while (line := process.stdout.readline().rstrip()) != "dead":
        assert line
        said.append(line)
    return said


@pytest.mark.slow
def test_two_hundred_kills(tmp_path):
    chance = random.Random(20261122)
    told, alive = [], 0
    with nursery(tmp_path) as process:
        for run in range(KILLS):
            # From before the lock is taken, through recovery of what the last one left, to deep into the writing.
            seconds = chance.choice((0.002, 0.01, 0.03)) * (0.5 + chance.random())
            said = killed_after(process, run, seconds, wait=run % 3 > 0)
            told += said
            alive += bool(said)
    found = [content["id"] for content in read(tmp_path)]
    assert len(found) == len(set(found))
    assert set(told) <= set(found)
    assert alive > KILLS / 4, "most writers must have come to write"
    torn = len(list((tmp_path / "torn").iterdir()))
    assert torn > KILLS / 20, "kills must have fallen into lines"
    writer = tape(tmp_path)
    assert writer.next == len(found) + 1
    writer.close()
    report = verify(tmp_path)
    assert report.faults == []
    assert report.records == len(found) == report.last
    assert len(segments(tmp_path)) > 3
