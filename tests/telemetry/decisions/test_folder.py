"""The folder of a log: names of files, the lock of its writer, and what is old."""

import errno
import os
import subprocess
import sys

import pytest

from monitor.errors import ConfigurationError
from monitor.telemetry.decisions.folder import (
    Retention,
    WriterLock,
    has_writer,
    segment,
    segments,
    sync_folder,
)
from tests.telemetry.decisions.logs import tape


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


def made(folder, *firsts, size=10):
    """Files of a log, each `size` bytes, the oldest first and a minute apart."""
    folder.mkdir(exist_ok=True)
    for place, first in enumerate(firsts):
        path = segment(folder, first).path
        path.write_bytes(b"x" * size)
        os.utime(path, (60 * place, 60 * place))


def test_files_are_in_the_order_of_their_first_record(tmp_path):
    made(tmp_path, 100, 7, 1)
    for name in ("decisions-1.jsonl", "decisions-0000000000000009.jsonl.gz", "writer.lock", "torn"):
        (tmp_path / name).write_text("")
    assert [found.first for found in segments(tmp_path)] == [1, 7, 100]
    assert segments(tmp_path)[1] == segment(tmp_path, 7)
    assert segment(tmp_path, 7).path.name == "decisions-0000000000000007.jsonl"
    with pytest.raises(FileNotFoundError):
        segments(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("limits", "gone"),
    [
        ({}, []),
        ({"files": 2}, [1, 4]),
        ({"files": 0}, [1, 4, 9]),
        ({"bytes": 25}, [1, 4]),
        ({"bytes": 40}, []),
        ({"seconds": 100.0}, [1, 4]),
        ({"seconds": 1.0}, [1, 4, 9]),
        ({"files": 3, "bytes": 10, "seconds": 1e6}, [1, 4, 9]),
    ],
)
def test_what_is_beyond_the_limits_goes_and_the_newest_stays(tmp_path, limits, gone):
    made(tmp_path, 1, 4, 9, 20)
    found = Retention(**limits).expired(tmp_path, now=200.0)
    assert [one.first for one in found] == gone


def test_whoever_reads_sees_that_somebody_writes(tmp_path):
    assert not has_writer(tmp_path)
    lock = WriterLock(tmp_path / "log")
    assert has_writer(tmp_path / "log")
    assert (tmp_path / "log" / "writer.lock").read_text() == f"{os.getpid()}\n"
    lock.release()
    assert not has_writer(tmp_path / "log")


def test_a_folder_is_synced_and_a_file_is_none(tmp_path):
    sync_folder(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        sync_folder(tmp_path / "file")
