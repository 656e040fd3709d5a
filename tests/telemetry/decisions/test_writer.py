"""Files of the log: rotation, retention, permissions, the lock, and what a crash left behind."""

import os
import random
from types import SimpleNamespace

import pytest

from monitor.telemetry.decisions import writer as writer_module
from monitor.telemetry.decisions.folder import Retention, segments
from monitor.telemetry.decisions.reader import read, verify
from monitor.telemetry.decisions.writer import Rotation
from tests.telemetry.decisions.logs import BadDisk, modes, record, tape
from tests.telemetry.decisions.written import ids, whole


def test_only_the_owner_may_read(tmp_path):
    folder = tmp_path / "new"
    before = os.umask(0)
    try:
        writer = tape(folder)
        writer.append([record()])
        writer.close()
    finally:
        os.umask(before)
    assert oct(folder.stat().st_mode & 0o777) == "0o700"
    assert set(modes(folder).values()) == {"0o600"}


def test_a_file_that_others_may_read_is_closed_to_them(tmp_path):
    writer = tape(tmp_path)
    writer.append([record()])
    writer.close()
    path = segments(tmp_path)[0].path
    path.chmod(0o644)
    tape(tmp_path).close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_new_file_begins_by_size_and_by_age(tmp_path, monkeypatch):
    writer = tape(tmp_path, rotation=Rotation(bytes=4096))
    for index in range(40):
        writer.append([record(f"{index:0500d}")])
    assert len(segments(tmp_path)) > 4
    assert all(found.path.stat().st_size <= 4096 for found in segments(tmp_path))
    assert len(ids(tmp_path)) == 40
    assert len(ids(tmp_path, after=37)) == 3
    writer.close()
    now = 1000.0
    monkeypatch.setattr(writer_module, "time", SimpleNamespace(time=lambda: now))
    aged = tape(tmp_path, rotation=Rotation(seconds=60.0))
    files = len(segments(tmp_path))
    now += 59.0
    aged.append([record()])
    assert len(segments(tmp_path)) == files
    now += 1.0
    aged.append([record()])
    assert len(segments(tmp_path)) == files + 1
    aged.close()
    assert verify(tmp_path).faults == []


@pytest.mark.parametrize(
    "retention",
    [Retention(files=2), Retention(bytes=2500), Retention(seconds=50.0)],
    ids=["files", "bytes", "age"],
)
def test_old_files_go_and_the_newest_stays(tmp_path, retention):
    writer = tape(tmp_path, rotation=Rotation(bytes=1000), retention=retention)
    for index in range(20):
        writer.append([record(f"{index:0300d}")])
    known = segments(tmp_path)
    for found in known[:-2]:
        os.utime(found.path, (1, 1))
    writer.tidy()
    left = segments(tmp_path)
    assert left == known[-len(left) :]
    assert 1 <= len(left) <= 3
    report = verify(tmp_path)
    assert report.faults == []
    assert report.first > 1
    writer.close()


@pytest.mark.parametrize("room", [0, 1, 30, 100])
@pytest.mark.parametrize("before", [0, 2])
def test_after_a_full_disk_nothing_of_the_failed_append_is_left(tmp_path, room, before):
    disk = BadDisk()
    writer = tape(tmp_path, disk)
    for _ in range(before):
        writer.append([record("kept")])
    disk.room = room
    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            writer.append([record("lost" * 50), record("lost" * 50)])
    disk.room = None
    assert writer.append([record("back")]).first == before + 1
    writer.close()
    assert ids(tmp_path) == ["kept"] * before + ["back"]
    assert verify(tmp_path).faults == []


def test_a_failed_sync_is_not_believed(tmp_path):
    disk = BadDisk()
    writer = tape(tmp_path, disk)
    writer.append([record("kept")])
    disk.sync_fails = True
    with pytest.raises(OSError, match="Input/output"):
        writer.append([record("perhaps")])
    disk.sync_fails = False
    writer.append([record("sure")])
    writer.close()
    assert ids(tmp_path) == ["kept", "sure"]
    assert len(segments(tmp_path)) == 2


def test_whatever_happens_to_the_bytes_only_what_was_written_is_read(tmp_path):
    path = whole(tmp_path)
    raw, chance = path.read_bytes(), random.Random(11)
    written = list(read(tmp_path))
    for _ in range(400):
        changed = bytearray(raw)
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(changed))
            piece = bytes(chance.randrange(256) for _ in range(chance.randrange(6)))
            changed[at : at + chance.randrange(6)] = piece
        path.write_bytes(bytes(changed))
        assert all(content in written for content in read(tmp_path))
        verify(tmp_path)
