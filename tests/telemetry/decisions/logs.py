"""Logs in a folder, with a disk that fails when told to."""

import errno
import json
import os

from monitor.telemetry.decisions.folder import Retention
from monitor.telemetry.decisions.log import DecisionLog
from monitor.telemetry.decisions.writer import Disk, LogWriter, Rotation


class Meter:
    """Counts like the real one."""

    def __init__(self):
        self.records, self.commits, self.drops, self.errors, self.taken = 0, 0, [], [], []
        self.queued = lambda: 0

    def enabled(self, queued, limit):
        self.queued = queued

    def committed(self, records, size, seconds):
        self.records += records
        self.commits += 1

    def dropped(self, cause, records=1):
        self.drops.append(cause)

    def failed(self, cause):
        self.errors.append(cause)

    def displaced(self, cause, records):
        self.taken.append((cause, records))


class BadDisk(Disk):
    """Writes `room` bytes and then says that the disk is full; `hold` keeps syncs waiting."""

    def __init__(self):
        self.room = None
        self.sync_fails = False
        self.hold = None

    def write(self, handle, data):
        if self.room is None:
            return super().write(handle, data)
        if self.room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = super().write(handle, data[: self.room])
        self.room -= written
        return written

    def sync(self, handle):
        if self.hold is not None:
            self.hold.wait(20)
        if self.sync_fails:
            raise OSError(errno.EIO, "Input/output error")
        super().sync(handle)


def tape(folder, disk=None, rotation=None, retention=None):
    return LogWriter(folder, rotation or Rotation(), retention or Retention(), disk)


def log(folder, on_full="refuse", disk=None, meter=None, **changes):
    return DecisionLog(tape(folder, disk), on_full, meter or Meter(), **changes)


def record(text="x"):
    return json.dumps({"kind": "decision", "id": text}).encode()


def modes(folder):
    return {path.name: oct(os.stat(path).st_mode & 0o777) for path in folder.iterdir()}
