"""Reading a log: whole lines alone, in order, and everything that is wrong."""

import pytest

from monitor.telemetry.decisions import reader
from monitor.telemetry.decisions.folder import segment, segments
from monitor.telemetry.decisions.reader import read, scan, verify
from monitor.telemetry.decisions.writer import Rotation
from tests.telemetry.decisions.logs import record, tape
from tests.telemetry.decisions.written import ids, whole


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


def several(folder):
    """Five records in files of their own."""
    writer = tape(folder, rotation=Rotation(bytes=10))
    for name in "abcde":
        writer.append([record(name)])
    writer.close()
    return segments(folder)


@pytest.mark.parametrize("after", range(7))
def test_only_files_that_can_hold_them_are_opened(tmp_path, after, monkeypatch):
    several(tmp_path)
    opened = []
    monkeypatch.setattr(reader, "scan", lambda path, *a: opened.append(path.name) or scan(path, *a))
    assert [content["seq"] for content in reader.read(tmp_path, after)] == list(range(after + 1, 6))
    assert len(opened) <= max(1, 5 - after)


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """A file of 600 records of many lengths, two of which are damaged."""
    folder = tmp_path_factory.mktemp("long")
    writer = tape(folder)
    writer.append([record(f"{number:x}" * (1 + number * number % 997)) for number in range(600)])
    writer.close()
    (only,) = segments(folder)
    raw = bytearray(only.path.read_bytes())
    damaged = [line for line in scan(only.path) if line.content["seq"] in (300, 450)]
    for line in damaged:
        raw[line.start + 7] ^= 1  # in the number itself
    only.path.write_bytes(bytes(raw))
    return folder


@pytest.mark.parametrize("stretch", [1, 4096])
def test_a_reader_who_comes_back_reads_the_end_of_a_file_alone(long, stretch, monkeypatch):
    monkeypatch.setattr(reader, "_STRETCH", stretch)
    everything = [seq for seq in range(1, 601) if seq not in (300, 450)]
    for after in [*range(0, 600, 7), 299, 300, 301, 449, 450, 598, 599, 600, 10_000]:
        assert [content["seq"] for content in read(long, after)] == [n for n in everything if n > after]
    decoded = []
    kept = reader.lines.decode
    monkeypatch.setattr(reader.lines, "decode", lambda raw: decoded.append(raw) or kept(raw))
    assert [content["seq"] for content in read(long, 598)] == [599, 600]
    assert reader.newest(long) == 600
    assert len(decoded) < 120


def test_a_file_that_is_deleted_meanwhile_is_passed_over(tmp_path):
    files = several(tmp_path)
    found = reader.read(tmp_path)
    assert next(found)["id"] == "a"
    files[1].path.unlink()
    assert [content["id"] for content in found] == ["c", "d", "e"]


def test_the_newest_record_is_found_behind_an_empty_file(tmp_path):
    assert reader.newest(tmp_path) == 0
    several(tmp_path)
    assert reader.newest(tmp_path) == 5
    segment(tmp_path, 6).path.write_bytes(b"")
    assert reader.newest(tmp_path) == 5


def test_following_ends_when_it_is_told_to(tmp_path):
    several(tmp_path)
    over = iter([False, True])
    added = []

    def ended():
        if not added:
            added.append(True)
            again = tape(tmp_path)
            again.append([record("f")])
            again.close()
        return next(over)

    assert [content["id"] for content in reader.follow(tmp_path, 3, ended)] == ["d", "e", "f"]


def test_lines_without_an_end_are_not_finished(tmp_path):
    path = several(tmp_path)[0].path
    raw = path.read_bytes()
    path.write_bytes(raw + raw[:20])
    whole_line, part = scan(path)
    assert (whole_line.content["id"], whole_line.finished, whole_line.fault) == ("a", True, "")
    assert (part.content, part.finished, part.start, part.end) == (None, False, len(raw), len(raw) + 20)
    assert [line.content["id"] for line in scan(path, 0) if line.content] == ["a"]
    report = verify(tmp_path)
    assert (report.files, report.records, report.first, report.last, report.writing) == (5, 5, 1, 5, False)
    (fault,) = report.faults
    assert fault == f"{path.name}:{len(raw)}: the line has no end; it is not read"


def test_a_line_that_is_being_written_is_no_fault(tmp_path):
    writer = tape(tmp_path)
    writer.append([record("a")])
    path = segments(tmp_path)[-1].path
    raw = path.read_bytes()
    path.write_bytes(raw + raw[:20])
    assert (verify(tmp_path).writing, verify(tmp_path).faults) == (True, [])
    writer.close()
