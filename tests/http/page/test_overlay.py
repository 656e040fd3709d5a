"""The folder that the page saves to."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from monitor.errors import ConfigurationError, InputError, Unavailable
from monitor.http.page.overlay import LONGEST_TEXT, Overlay
from monitor.policy.files.benign import read_benign_texts


def test_the_folder_is_made_and_tells_where_things_lie(tmp_path):
    overlay = Overlay(tmp_path / "a" / "b")
    assert overlay.policy_names() == []
    assert overlay.labels("sha256:" + "c" * 64) == tmp_path / "a" / "b" / "labels" / ("c" * 16)


def test_a_folder_that_cannot_be_used_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="page_overlay"):
        Overlay(tmp_path / "file" / "inside")


@pytest.mark.parametrize("name", ["../up", "a/b", "UPPER", "", "a.yaml", ".hidden", "a\n"])
def test_policies_have_names_and_no_paths(tmp_path, name):
    with pytest.raises(InputError, match="no name of a policy"):
        Overlay(tmp_path / "o").save_policy(name, "text")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_policies_are_saved_with_what_they_name(tmp_path):
    overlay = Overlay(tmp_path / "o")
    (tmp_path / "x.examples.jsonl").write_text("{}")
    assert overlay.save_policy("my-one", "text", [tmp_path / "x.examples.jsonl"]) == "policies/my-one.yaml"
    assert (overlay.policies / "my-one.yaml").read_text() == "text"
    assert (overlay.policies / "x.examples.jsonl").read_text() == "{}"
    overlay.save_policy("my-one", "other")
    assert (overlay.policies / "my-one.yaml").read_text() == "other"
    assert overlay.policy_names() == ["my-one"]


def test_marks_are_benign_texts_that_a_fit_reads(tmp_path):
    overlay = Overlay(tmp_path)
    assert overlay.mark({"text": "a line\nand another", "group": "decision 1"})
    assert overlay.mark({"messages": [{"role": "user", "content": "hello"}], "group": "decision 2"})
    assert not overlay.mark({"text": "again", "group": "decision 1"})
    found = read_benign_texts(overlay.policies / "benign" / "marked.jsonl")
    assert [(one.plain, one.group) for one in found] == [
        ("a line\nand another", "decision 1"),
        ("hello", "decision 2"),
    ]


def test_lines_that_a_person_has_broken_are_left_as_they_are(tmp_path):
    overlay = Overlay(tmp_path)
    overlay.mark({"text": "a", "group": "1"})
    path = overlay.policies / "benign" / "marked.jsonl"
    path.write_text(path.read_text() + "not json\n[]\n")
    assert overlay.mark({"text": "b", "group": "2"})
    assert not overlay.mark({"text": "b", "group": "1"})
    assert path.read_text().splitlines()[1:3] == ["not json", "[]"]


@pytest.mark.parametrize("row", [{"text": " "}, {"text": "a" * (LONGEST_TEXT + 1)}, {"messages": []}])
def test_marks_without_a_text_are_refused(tmp_path, row):
    with pytest.raises(InputError, match="benign example"):
        Overlay(tmp_path).mark(row | {"group": "g"})


def test_marks_of_many_threads_are_all_kept(tmp_path):
    overlay = Overlay(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: overlay.mark({"text": f"text {n}", "group": str(n)}), range(40)))
    lines = (overlay.policies / "benign" / "marked.jsonl").read_text().splitlines()
    assert {json.loads(line)["group"] for line in lines} == {str(n) for n in range(40)}


def test_a_disk_that_refuses_is_told_without_a_path(tmp_path, monkeypatch):
    overlay = Overlay(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(Unavailable, match="No space left") as error:
        overlay.save_policy("one", "text")
    assert str(tmp_path) not in str(error.value)
