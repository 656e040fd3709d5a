"""Reading a file of bounded size."""

import tracemalloc

import pytest

from monitor.policy.files.yaml_document import PolicyProblems, read_text


def test_a_small_file_takes_little_memory_whatever_its_limit(tmp_path):
    path = tmp_path / "small.jsonl"
    path.write_text("x" * 70_000)
    tracemalloc.start()
    try:
        assert read_text(path, 2**26) == "x" * 70_000
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    with pytest.raises(PolicyProblems, match="is larger than 69999 bytes"):
        read_text(path, 69_999)
    assert read_text(path, 70_000) == "x" * 70_000
