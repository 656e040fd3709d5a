"""Files of the log: rotation, retention, permissions, the lock, and what a crash left behind."""

import errno
import os
import random
import subprocess
import sys
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from monitor.errors import ConfigurationError
from monitor.telemetry.decisions import writer as writer_module
from monitor.telemetry.decisions.folder import Retention, has_writer, segments
from monitor.telemetry.decisions.reader import read, scan, verify
from monitor.telemetry.decisions.writer import Rotation
from tests.telemetry.decisions.logs import BadDisk, modes, record, tape


def ids(folder, after=0):
    return [content["id"] for content in read(folder, after)]


def test_records_are_numbered_and_read_in_order(tmp_path):
    writer = tape(tmp_path)
    assert writer.append([record("a"), record("b")]).first == 1
    assert writer.append([record("c")]).first == 3
    assert ids(tmp_path) == ["a", "b", "c"]
    assert ids(tmp_path, after=2) == ["c"]
    writer.close()
    again = tape(tmp_path)
    assert again.append([record("d")]).first == 4
    again.close()
    assert [content["seq"] for content in read(tmp_path)] == [1, 2, 3, 4]


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


def test_one_folder_has_one_writer(tmp_path):
    writer = tape(tmp_path)
    assert has_writer(tmp_path)
    with pytest.raises(ConfigurationError, match=f"process {os.getpid()} writes .* a folder of its own"):
        tape(tmp_path)
    code = f"from pathlib import Path; from tests.telemetry.decisions.logs import tape; tape(Path({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ConfigurationError" in done.stderr
    writer.close()
    assert not has_writer(tmp_path)
    tape(tmp_path).close()


def test_a_full_disk_does_not_keep_a_folder_from_being_locked(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    held = tape(tmp_path)
    with pytest.raises(ConfigurationError, match="process unknown writes"):
        tape(tmp_path)
    held.close()


def test_a_folder_that_cannot_be_made_is_a_configuration_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be written: Not a directory; give another folder"):
        tape(tmp_path / "file" / "log")


def whole(folder):
    writer = tape(folder)
    writer.append([record("a"), record("b")])
    writer.close()
    return segments(folder)[0].path


@pytest.mark.parametrize(
    "tail", [b"{", b'{"seq":3,"id":"c"', b"\n", b"\x00" * 4096, b'{"seq":9}\n', b"no\nno\n"]
)
def test_a_torn_tail_is_set_aside_and_said(tmp_path, tail):
    path = whole(tmp_path)
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(tail)
    assert ids(tmp_path) == ["a", "b"]
    assert verify(tmp_path).faults
    with capture_logs() as said:
        writer = tape(tmp_path)
    assert writer.torn == len(tail)
    assert [line["bytes"] for line in said if "not written whole" in line["event"]] == [len(tail)]
    assert path.stat().st_size == size
    (aside,) = (tmp_path / "torn").iterdir()
    assert aside.read_bytes() == tail
    assert aside.stat().st_mode & 0o777 == 0o600
    assert writer.append([record("c")]).first == 3
    writer.close()
    assert ids(tmp_path) == ["a", "b", "c"]
    assert verify(tmp_path).faults == []


def test_a_file_cut_anywhere_loses_only_what_was_cut(tmp_path):
    path = whole(tmp_path)
    raw = path.read_bytes()
    first = next(scan(path)).end
    for size in range(len(raw)):
        path.write_bytes(raw[:size])
        writer = tape(tmp_path)
        expected = 0 if size < first else 1
        assert writer.next == 3  # The numbers of lost records are not given again.
        assert len(ids(tmp_path)) == expected
        writer.close()


def test_a_damaged_line_in_the_middle_is_passed_over_and_reported(tmp_path):
    path = whole(tmp_path)
    raw = bytearray(path.read_bytes())
    raw[20] ^= 1
    path.write_bytes(bytes(raw))
    assert ids(tmp_path) == ["b"]
    damaged, gone = verify(tmp_path).faults
    assert damaged.endswith(":0: the line does not match its checksum; it is not read")
    assert "record 1 is missing" in gone
    writer = tape(tmp_path)
    assert writer.next == 3
    writer.close()


def test_a_missing_file_is_reported(tmp_path):
    writer = tape(tmp_path, rotation=Rotation(bytes=10))
    for name in "abc":
        writer.append([record(name)])
    writer.close()
    segments(tmp_path)[1].path.unlink()
    (fault,) = verify(tmp_path).faults
    assert "record 3 follows record 1: record 2 is missing" in fault
    assert verify(tmp_path).missing == 1


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
