"""Files of the log that others remove, move, cut or change while a server writes, and folders that go away."""

import errno
import os
import shutil
import subprocess

import pytest

from monitor.errors import Unavailable
from monitor.telemetry.decisions.folder import LogState, Retention, has_writer, segments
from monitor.telemetry.decisions.reader import read, verify
from monitor.telemetry.decisions.writer import Disk, Displaced, LogWriter, Rotation
from tests.telemetry.decisions.logs import Meter, log, record, tape
from tests.waiting import wait_for

WAIT = 60


def made(name):
    return lambda: {"kind": "decision", "id": name}


def shown(folder):
    return [content.get("id", content.get("lost")) for content in read(folder)]


def newest(folder):
    return segments(folder)[-1].path


def removed(path):
    path.unlink()


def moved(path):
    path.rename(path.with_name(path.name + ".1"))


def moved_and_created(path):
    moved(path)
    path.touch(0o600)


def moved_to_another_folder(path):
    (path.parent / "old").mkdir()
    path.rename(path.parent / "old" / path.name)


def copied_and_truncated(path):
    shutil.copy(path, path.with_name(path.name + ".1"))
    os.truncate(path, 0)


def cut_in_the_middle_of_the_second_line(path):
    os.truncate(path, path.stat().st_size * 3 // 4)


def replaced(path):
    text = path.read_bytes()
    path.unlink()
    path.write_bytes(text)


DEEDS = {
    removed: ("removed", 2, ["next"]),
    moved: ("moved", 2, ["next"]),
    moved_and_created: ("moved", 2, ["next"]),
    moved_to_another_folder: ("moved", 2, ["next"]),
    copied_and_truncated: ("truncated", 2, ["next"]),
    cut_in_the_middle_of_the_second_line: ("truncated", 1, ["a", "next"]),
    replaced: ("removed", 2, ["a", "b", "next"]),
}


@pytest.mark.parametrize("on_full", ["refuse", "drop"])
@pytest.mark.parametrize("deed", DEEDS, ids=lambda deed: deed.__name__)
def test_the_very_next_record_goes_to_a_new_file_and_the_loss_is_counted(tmp_path, deed, on_full):
    cause, gone, left = DEEDS[deed]
    meter = Meter()
    decisions = log(tmp_path, on_full, meter=meter)
    for name in "ab":
        decisions.append(made(name)).result(WAIT)
    deed(newest(tmp_path))
    assert decisions.append(made("next")).result(WAIT) == 4
    assert meter.taken == [(cause, gone)]
    assert decisions.healthy()
    assert [seen for seen in shown(tmp_path) if not isinstance(seen, int)] == left
    assert gone in shown(tmp_path)
    decisions.append(made("after")).result(WAIT)
    decisions.close()
    assert shown(tmp_path)[-1] == "after"
    assert len(meter.taken) == 1


def test_verify_counts_what_is_missing_before_the_first_record(tmp_path):
    decisions = log(tmp_path)
    for name in "abcde":
        decisions.append(made(name)).result(WAIT)
    newest(tmp_path).unlink()
    decisions.append(made("next")).result(WAIT)
    decisions.close()
    report = verify(tmp_path)
    assert report.missing == 5
    (fault,) = report.faults
    assert (
        fault == "before the first record, and retention did not delete them: 5 records, 1 to 5, are missing"
    )


def test_verify_counts_what_is_missing_at_the_end_and_in_an_empty_folder(tmp_path):
    writer = tape(tmp_path, rotation=Rotation(bytes=10))
    for name in "abc":
        writer.append([record(name)])
    writer.close()
    newest(tmp_path).unlink()
    assert (verify(tmp_path).missing, len(verify(tmp_path).faults)) == (1, 1)
    for found in segments(tmp_path):
        found.path.unlink()
    assert verify(tmp_path).missing == 3


def test_what_retention_deleted_is_not_missing(tmp_path):
    writer = tape(tmp_path, rotation=Rotation(bytes=10), retention=Retention(files=2))
    for name in "abcdef":
        writer.append([record(name)])
    writer.tidy()
    report = verify(tmp_path)
    assert (report.missing, report.faults, report.deleted) == (0, [], 4)
    writer.close()
    segments(tmp_path)[0].path.unlink()
    assert (verify(tmp_path).missing, verify(tmp_path).deleted) == (1, 4)


def test_a_log_that_says_nothing_of_itself_may_lack_its_beginning(tmp_path):
    writer = tape(tmp_path, rotation=Rotation(bytes=10))
    for name in "abc":
        writer.append([record(name)])
    writer.close()
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copy(newest(tmp_path), copy)
    (fault,) = verify(copy).faults
    assert (
        fault
        == "before the first record, and nothing says whether they were deleted: 2 records, 1 to 2, are missing"
    )


class Striking(Disk):
    """Does something to the file after it was synced, before the writer believes that it is done."""

    def __init__(self):
        self.strike = None

    def sync(self, handle):
        super().sync(handle)
        strike, self.strike = self.strike, None
        if strike is not None:
            strike()


@pytest.mark.parametrize("deed", [removed, moved, moved_and_created, copied_and_truncated, replaced])
@pytest.mark.parametrize("before", [0, 2])
def test_a_file_that_goes_during_a_commit_takes_nothing_with_it(tmp_path, deed, before):
    disk, meter = Striking(), Meter()
    decisions = log(tmp_path, disk=disk, meter=meter)
    for _ in range(before):
        decisions.append(made("before")).result(WAIT)
    disk.strike = lambda: deed(newest(tmp_path))
    decisions.append(made("acknowledged")).result(WAIT)
    decisions.close()
    assert [content for content in read(tmp_path) if content.get("id") == "acknowledged"]
    assert meter.taken[0][1] == before or deed is copied_and_truncated


def test_a_line_that_another_process_wrote_into_the_file_ends_the_file(tmp_path):
    meter = Meter()
    decisions = log(tmp_path, meter=meter)
    decisions.append(made("a")).result(WAIT)
    with newest(tmp_path).open("ab") as file:
        file.write(b"hello\n")
    decisions.append(made("b")).result(WAIT)
    decisions.close()
    assert meter.taken == [("changed", 0)]
    assert shown(tmp_path) == ["a", 0, "b"]


@pytest.mark.slow
@pytest.mark.parametrize(("on_full", "healthy"), [("refuse", False), ("drop", True)])
def test_a_folder_that_is_gone_is_not_made_anew_and_its_log_goes_on_when_it_is_back(
    tmp_path, on_full, healthy
):
    folder, meter = tmp_path / "log", Meter()
    decisions = log(folder, on_full, meter=meter)
    decisions.append(made("a")).result(WAIT)
    folder.rename(tmp_path / "away")
    waiting = decisions.append(made("lost"))
    if on_full == "refuse":
        with pytest.raises(Unavailable, match="could not be logged"):
            waiting.result(WAIT)
    else:
        assert waiting.result(WAIT) == 0
    assert decisions.healthy() is healthy
    assert not folder.exists()
    assert meter.taken == [("moved", 1)]
    assert meter.drops
    (tmp_path / "away").rename(folder)
    wait_for(lambda: len(list(read(folder))) == 2)
    assert decisions.append(made("back")).result(WAIT) == 3
    decisions.close()
    assert shown(folder) == ["a", 2, "back"]
    assert verify(folder).faults == []


def test_another_folder_in_its_place_gets_the_log_and_the_lock(tmp_path):
    folder = tmp_path / "log"
    writer = tape(folder)
    writer.append([record("a"), record("b")])
    name = writer.state.id
    folder.rename(tmp_path / "old")
    folder.mkdir()
    with pytest.raises(Displaced, match="moved away"):
        writer.append([record("c")])
    assert writer.append([record("c")]).first == 3
    assert has_writer(folder)
    assert not has_writer(tmp_path / "old")
    assert writer.state.id == name
    writer.close()
    assert verify(folder).missing == 2
    assert LogState.read(folder).next == 4


def test_another_log_in_its_place_is_continued_under_its_own_name(tmp_path):
    other = tape(tmp_path / "other", rotation=Rotation(bytes=10))
    for _ in range(7):
        other.append([record("theirs")])
    theirs = other.state.id
    other.close()
    writer = tape(tmp_path / "log")
    writer.append([record("ours")])
    shutil.rmtree(tmp_path / "log")
    (tmp_path / "other").rename(tmp_path / "log")
    with pytest.raises(Displaced, match="removed"):
        writer.append([record("x")])
    assert writer.append([record("x")]).first == 8
    assert writer.state.id == theirs
    writer.close()
    assert verify(tmp_path / "log").faults == []


def test_a_lock_that_was_removed_is_taken_again(tmp_path):
    writer = tape(tmp_path)
    writer.append([record("a")])
    (tmp_path / "writer.lock").unlink()
    assert writer.append([record("b")]).first == 2
    assert has_writer(tmp_path)
    writer.close()
    assert verify(tmp_path).faults == []


@pytest.mark.slow
def test_a_lock_that_another_process_took_meanwhile_is_respected(tmp_path):
    decisions = log(tmp_path)
    decisions.append(made("a")).result(WAIT)
    (tmp_path / "writer.lock").unlink()
    other = tape(tmp_path)
    with pytest.raises(Unavailable):
        decisions.append(made("b")).result(WAIT)
    assert not decisions.healthy()
    other.close()
    wait_for(decisions.healthy)
    decisions.close()
    assert verify(tmp_path).faults == []


@pytest.mark.slow
def test_a_folder_that_may_not_be_looked_into_counts_as_a_failure(tmp_path, monkeypatch):
    meter = Meter()
    decisions = log(tmp_path, meter=meter)
    decisions.append(made("a")).result(WAIT)

    def refuse(*_):
        raise OSError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as taken:
        taken.setattr("monitor.telemetry.decisions.writer.same_file", refuse)
        with pytest.raises(Unavailable):
            decisions.append(made("b")).result(WAIT)
        assert "write" in meter.errors
    wait_for(decisions.healthy)
    decisions.append(made("c")).result(WAIT)
    decisions.close()
    assert shown(tmp_path) == ["a", 1, "c"]


def test_after_a_restart_numbers_go_on_behind_those_that_are_lost(tmp_path):
    writer = tape(tmp_path)
    writer.append([record("a"), record("b")])
    name = writer.state.id
    writer.close()
    newest(tmp_path).unlink()
    again = tape(tmp_path)
    assert again.append([record("c")]).first == 3
    assert again.state.id != name, "what the old name's cursors had seen is not known"
    again.close()
    assert verify(tmp_path).missing == 2


def test_a_log_keeps_its_name_over_restarts_and_two_logs_have_two(tmp_path):
    names = []
    for _ in range(2):
        writer = tape(tmp_path / "one")
        writer.append([record("a")])
        names.append(writer.state.id)
        writer.close()
    other = tape(tmp_path / "other")
    assert names[0] == names[1] != other.state.id
    other.close()


def test_a_full_disk_does_not_keep_a_log_from_opening(tmp_path, monkeypatch):
    def full(self, folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(LogState, "write", full)
    writer = LogWriter(tmp_path, Rotation(), Retention())
    with pytest.raises(OSError, match="No space"):
        writer.append([record("a")])
    monkeypatch.undo()
    assert writer.append([record("a")]).first == 1
    writer.close()


@pytest.mark.real
@pytest.mark.skipif(shutil.which("logrotate") is None, reason="logrotate is not installed")
@pytest.mark.parametrize("how", ["create", "nocreate", "copytruncate", "create\ncompress"])
def test_logrotate(tmp_path, how):
    folder = tmp_path / "log"
    decisions = log(folder)
    decisions.append(made("a")).result(WAIT)
    rules = tmp_path / "rules"
    rules.write_text(f"{folder}/decisions-*.jsonl {{\nrotate 3\n{how}\n}}\n")
    rules.chmod(0o600)
    command = ["logrotate", "--force", "--state", tmp_path / "state", rules]
    subprocess.run(command, check=True, timeout=60)
    assert decisions.append(made("b")).result(WAIT) == 3
    decisions.close()
    assert shown(folder) == [1, "b"]
