"""Reading a file of bounded size, once, and what is refused in it."""

import tracemalloc

import pytest
from ruamel.yaml.scanner import Scanner

from monitor.policy.files.yaml_document import PolicyProblems, read_document, read_text


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


def test_a_file_is_parsed_once(tmp_path, monkeypatch):
    path, scanned = tmp_path / "a.yaml", []
    fetch = Scanner.fetch_more_tokens
    monkeypatch.setattr(Scanner, "fetch_more_tokens", lambda self: (scanned.append(self), fetch(self))[1])
    path.write_text("a: [1, 2]\nb: {c: d}\n")
    assert read_document(path).data == {"a": [1, 2], "b": {"c": "d"}}
    assert len(set(scanned)) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: *b\nc: 1\n", "aliases are refused"),
        ("a: &b 1\nc: *b\nd: [", "anchors are refused"),
        ("a: !!python/name:os.system x\n", "the tag"),
        ("[" * 40 + "]" * 40, "is nested deeper than 16 levels"),
        ("[" * 100_000, "is nested deeper than 16 levels"),
    ],
)
def test_what_is_refused_is_told_before_what_cannot_be_read(tmp_path, text, said):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(PolicyProblems) as caught:
        read_document(path)
    assert said in caught.value.problems[0].message
