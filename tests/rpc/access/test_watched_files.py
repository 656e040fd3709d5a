import os

import pytest

from monitor.errors import ConfigurationError
from monitor.rpc.access.watched_files import WatchedFiles


class Told:
    """What was noted, and how often files were read."""

    def __init__(self, *paths):
        self.paths, self.noted, self.readings = paths, [], 0

    def read(self):
        self.readings += 1
        text = "".join(path.read_text() for path in self.paths if path.exists())
        if "bad" in text:
            raise ConfigurationError("bad text")
        return text

    def watched(self, every=0.0):
        return WatchedFiles("tls", self.paths, self.read, lambda *args: self.noted.append(args), every)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "a").write_text("one")
    return tmp_path / "a"


def change(path, text):
    """Write a file that differs in its time of change whatever the clock of the file system."""
    path.write_text(text)
    later = path.stat().st_mtime_ns + 1_000_000
    os.utime(path, ns=(later, later))


def test_a_file_that_stays_is_read_once(path):
    told = Told(path)
    watched = told.watched()
    assert [watched.value() for _ in range(3)] == ["one"] * 3
    assert (told.readings, told.noted) == (1, [("tls", True)])


def test_a_file_that_changes_is_read_again(path):
    told = Told(path)
    watched = told.watched()
    change(path, "two")
    assert watched.value() == "two"
    change(path, "owt")
    assert watched.value() == "owt", "the length alone does not tell"
    assert told.noted == [("tls", True)] * 3


def test_any_of_several_files_counts_and_so_do_files_that_come_and_go(path, tmp_path):
    told = Told(path, tmp_path / "b")
    watched = told.watched()
    change(tmp_path / "b", "+b")
    assert watched.value() == "one+b"
    path.unlink()
    assert watched.value() == "+b"


def test_a_link_that_points_elsewhere_is_a_change(tmp_path):
    """As Kubernetes changes a secret."""
    for name in ("old", "new"):
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, ns=(10**18, 10**18))
    link = tmp_path / "current"
    link.symlink_to("old")
    watched = Told(link).watched()
    (tmp_path / "next").symlink_to("new")
    (tmp_path / "next").rename(link)
    assert watched.value() == "new"


def test_the_last_good_value_stays_and_a_bad_file_is_read_once(path, capsys):
    told = Told(path)
    watched = told.watched()
    change(path, "bad")
    assert [watched.value() for _ in range(3)] == ["one"] * 3
    assert (told.readings, told.noted) == (2, [("tls", True), ("tls", False)])
    change(path, "good")
    assert watched.value() == "good"
    assert told.noted[-1] == ("tls", True)


def test_the_first_reading_may_fail(path):
    path.write_text("bad")
    told = Told(path)
    with pytest.raises(ConfigurationError, match="bad text"):
        told.watched()
    assert told.noted == []


def test_errors_that_nobody_expects_are_not_swallowed(path):
    watched = Told(path).watched()
    path.write_bytes(b"\xff\xff")
    with pytest.raises(UnicodeDecodeError):
        watched.value()


def test_files_are_looked_at_every_so_often_only(path):
    told = Told(path)
    watched = told.watched(every=3600.0)
    change(path, "two")
    assert watched.value() == "one"
    assert told.readings == 1
