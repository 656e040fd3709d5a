"""Where locks lie, and what their folders are called."""

from pathlib import Path

import pytest

from monitor.errors import InputError
from monitor.policy.files.lock_folders import (
    all_locks,
    checked_name,
    lock_path,
    locks_of,
    made_name,
    misplaced,
    pair_folders,
    policy_of,
)


def put(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")


def test_each_pair_has_a_folder_of_locks_below_the_policies():
    path = lock_path(Path("folder/greed.yaml"), "small")
    assert path == Path("folder/locks/small/greed.lock.yaml")
    assert policy_of(path) == "greed"


def test_locks_are_found_by_policy_and_by_folder(tmp_path):
    greed, envy = tmp_path / "greed.yaml", tmp_path / "envy.yaml"
    assert (pair_folders(tmp_path), locks_of(greed), list(all_locks(tmp_path))) == ([], {}, [])
    put(
        tmp_path,
        "locks/b/greed.lock.yaml",
        "locks/a/greed.lock.yaml",
        "locks/a/envy.lock.yaml",
        "locks/a/x.md",
    )
    put(tmp_path, "locks/..data/greed.lock.yaml", "locks/README.md")
    assert [folder.name for folder in pair_folders(tmp_path)] == ["a", "b"]
    assert locks_of(greed) == {pair: lock_path(greed, pair) for pair in ("a", "b")}
    assert list(all_locks(tmp_path)) == [lock_path(envy, "a"), lock_path(greed, "a"), lock_path(greed, "b")]


def test_a_lock_where_none_is_read_is_a_problem_that_says_where_it_belongs(tmp_path):
    put(tmp_path, "locks/a/greed.lock.yaml")
    assert misplaced(tmp_path) == []
    put(tmp_path, "greed.lock.yaml", "locks/envy.lock.yaml")
    beside, between = misplaced(tmp_path)
    assert (beside.file, between.file) == (
        str(tmp_path / "greed.lock.yaml"),
        str(tmp_path / "locks" / "envy.lock.yaml"),
    )
    assert f"move it to {tmp_path}/locks/PAIR/greed.lock.yaml, and greed.probe.safetensors" in beside.hint


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "two words", "-x", "x" * 101])
def test_a_name_that_is_no_folders_is_refused(name):
    with pytest.raises(InputError, match="cannot name a folder of locks"):
        checked_name(name)
    assert checked_name("Llama-3.1_8b") == "Llama-3.1_8b"


def test_a_pair_without_a_name_gets_one_of_its_model_and_digests():
    first, second = "sha256:" + "1a" * 32, "sha256:" + "2b" * 32
    assert made_name("/models/My Model (Q4).gguf", first, second) == "My-Model-Q4-.gguf-1a1a1a1a-2b2b2b2b"
    assert made_name("org/name-7b", first, second) == "name-7b-1a1a1a1a-2b2b2b2b"
    assert made_name("..", first, second) == "model-1a1a1a1a-2b2b2b2b"
    assert checked_name(made_name("x" * 300, first, second))
