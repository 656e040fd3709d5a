"""What a crash left behind is set aside, and nothing else."""

import errno
import os

import pytest
from structlog.testing import capture_logs

from monitor.telemetry.decisions.folder import segment, segments
from monitor.telemetry.decisions.reader import read, scan, verify
from monitor.telemetry.decisions.recovery import End, recover
from tests.telemetry.decisions.logs import record, tape
from tests.telemetry.decisions.written import ids, whole


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


def test_a_folder_without_files_begins_with_record_one(tmp_path):
    assert recover(tmp_path) == End(None, 0, 1, 0)


def test_a_whole_log_goes_on_where_it_ends(tmp_path):
    path = whole(tmp_path)
    assert recover(tmp_path) == End(segments(tmp_path)[0], path.stat().st_size, 3, 0)
    assert not (tmp_path / "torn").exists()


def test_a_new_file_without_a_whole_record_keeps_its_number(tmp_path):
    whole(tmp_path)
    newest = segment(tmp_path, 3)
    newest.path.write_bytes(b'{"seq":3,')
    assert recover(tmp_path) == End(newest, 0, 3, 9)
    assert newest.path.read_bytes() == b""
    assert [content["id"] for content in read(tmp_path)] == ["a", "b"]


def test_the_copy_is_whole_before_the_file_is_cut(tmp_path, monkeypatch):
    path = whole(tmp_path)
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"torn")

    def lost(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "ftruncate", lost)
    with pytest.raises(OSError, match="Input/output error"):
        recover(tmp_path)
    assert path.stat().st_size == size + 4
    assert [aside.read_bytes() for aside in (tmp_path / "torn").iterdir()] == [b"torn"]
