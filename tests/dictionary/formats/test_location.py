"""Where the files of a dictionary are: folders and files of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from monitor.dictionary.formats.location import local_folder, weight_files, weights_of
from tests.dictionary.formats.refusals import refused


def test_a_file_that_holds_no_weights(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    refused(tmp_path / "a.txt", "is not a weights file; give the folder")


def test_no_folder(tmp_path):
    refused(tmp_path / "nowhere", "does not exist")


def test_a_file_instead_of_a_folder(folder):
    refused(folder / "cfg.json", "give the folder")


@pytest.fixture
def place(tmp_path):
    """A folder with weights, with files of ours beside them, and with folders four deep."""
    for name in ("w.safetensors", "statistics.safetensors", "cfg.json", "a/b/c.pt", "a/b/c/d.pt"):
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_text("")
    (tmp_path / "config.json").write_text("")
    return tmp_path / "folder"


def test_a_folder_and_what_is_in_it(place):
    found = local_folder(place)
    assert found.names == {"w.safetensors", "statistics.safetensors", "cfg.json", "a/b/c.pt"}
    assert (found.chosen, found.home, found.label) == (None, place, str(place))
    assert found.address == place.resolve().as_posix()
    assert found.path("cfg.json") == place / "cfg.json"
    assert found.parent_file("config.json") == place.resolve().parent / "config.json"
    assert found.parent_file("cfg.json") is None


def test_a_file_and_the_folder_beside_it(place):
    found = local_folder(place / "w.safetensors")
    assert (found.chosen, found.address) == ("w.safetensors", (place / "w.safetensors").resolve().as_posix())
    assert found.home == place / "w.safetensors.sae-monitor"


def test_the_only_weights_are_found_and_files_of_ours_are_none(place):
    assert weights_of(local_folder(place)) == "w.safetensors"
    (place / "x.npz").write_text("")
    assert weights_of(local_folder(place)) is None
    assert weights_of(local_folder(place / "x.npz")) == "x.npz"
    assert weight_files(["b.pt", "a.pth", "deep/statistics.safetensors", "t.txt"]) == ["a.pth", "b.pt"]


def test_a_folder_that_cannot_be_listed(place, monkeypatch):
    def refuse(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    refused(place, "cannot be listed: Permission denied")
