"""Writers that are killed. Each tells on standard output what a caller would have been told: records that are on disk.

Run as a module it forks a writer for every line on standard input, so that one starts in milliseconds: the line is a
number, the answer `born PID`, then the ids, then `dead` once it was killed.
"""

import os
import random
import sys
import threading
import time
from pathlib import Path

import structlog

from monitor.telemetry.decisions.folder import Retention
from monitor.telemetry.decisions.log import DecisionLog
from monitor.telemetry.decisions.writer import Disk, LogWriter, Rotation
from tests.telemetry.decisions.logs import Meter

CALLERS = 6


class Dribble(Disk):
    """Writes a few bytes at a time and slowly, so that a kill falls between the parts of a line."""

    def __init__(self, seed):
        self._chance = random.Random(seed)

    def write(self, handle, data):
        time.sleep(0.0003)
        return super().write(handle, data[: self._chance.randrange(1, 90)])


def write_until_killed(folder, run):
    """Append records from several threads for ever; say the id of each once it is on disk.

    An id is written to the pipe at once and whole: it is shorter than PIPE_BUF.
    """
    log = DecisionLog(LogWriter(folder, Rotation(bytes=6000), Retention(), Dribble(run)), "refuse", Meter())

    def caller(number):
        chance = random.Random(run * 100 + number)
        for index in range(1_000_000):
            name = f"{run}-{number}-{index}"
            text = "x" * chance.randrange(300)
            log.append(lambda name=name, text=text: {"kind": "decision", "id": name, "pad": text}).result()
            os.write(1, f"{name}\n".encode())

    threads = [threading.Thread(target=caller, args=(number,), daemon=True) for number in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main(folder):
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    for line in sys.stdin:
        child = os.fork()
        if not child:
            write_until_killed(Path(folder), int(line))
        os.write(1, f"born {child}\n".encode())
        os.waitpid(child, 0)
        os.write(1, b"dead\n")


if __name__ == "__main__":
    main(sys.argv[1])
