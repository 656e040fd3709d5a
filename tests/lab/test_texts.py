"""Files of texts that cannot be read: named, with the reason, whatever they are read for."""

from __future__ import annotations

import gzip
import json
import lzma

import pytest

from monitor.errors import InputError
from monitor.lab.texts import corpus_files, in_equal_shares, read_texts

SENTENCES = "".join(f"{n} {n * n}\n" for n in range(5000)).encode()


def cut(data):
    return data[: len(data) - len(data) // 3]


def flipped(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


BROKEN = {
    "cut.txt.gz": cut(gzip.compress(SENTENCES)),
    "flipped.txt.gz": flipped(gzip.compress(SENTENCES)),
    "cut.txt.xz": cut(lzma.compress(SENTENCES)),
    "other.txt.gz": b"no gzip at all",
    "other.md.xz": b"no xz at all",
    "half.jsonl": b'{"text": "\\ud800"}',
    "deep.jsonl": b"[" * 100_000,
    "latin.jsonl": b'{"text": "caf\xe9"}',
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_of_a_corpus_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(BROKEN[name])
    with pytest.raises(InputError, match=name):
        list(in_equal_shares(corpus_files([tmp_path]), 1000))


@pytest.mark.parametrize("name", [name for name in BROKEN if ".md" not in name])
def test_a_broken_file_of_texts_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(BROKEN[name])
    with pytest.raises(InputError, match=name):
        read_texts(tmp_path / name)


def test_a_corpus_that_is_not_there_is_not_called_empty(tmp_path):
    with pytest.raises(InputError, match="no file or folder at"):
        corpus_files([tmp_path / "none.txt"])


def test_describe_reads_files_in_equal_shares(tmp_path):
    from monitor.lab.texts import corpus_files, in_equal_shares

    (tmp_path / "long.jsonl").write_text("\n".join(json.dumps({"text": "L" * 100}) for _ in range(50)))
    (tmp_path / "short.txt").write_text("\n".join("s" * 10 for _ in range(300)))
    (tmp_path / "one.md").write_text("m" * 1000)
    first = []
    for text in in_equal_shares(corpus_files([tmp_path]), 100):
        first.append(text)
        if len("".join(first)) > 1500:
            break
    share = {letter: sum(len(text) for text in first if text[0] == letter) for letter in "Lsm"}
    assert share["m"] == 100
    assert abs(share["L"] - share["s"]) <= 100


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.jsonl", "{", "x.jsonl:1: not JSON"),
        ("x.jsonl", '{"words": 1}', "x.jsonl:1: no text"),
        ("x.jsonl", '{"text": "a", "label": 3}', "`label` is 3"),
        ("x.csv", "a", "x.csv:1: no column `text`"),
        ("x.tsv", "a", "neither .txt"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path, name, content, said):
    from monitor.errors import InputError
    from monitor.lab.texts import read_texts

    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=said):
        read_texts(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "first\nsecond\n"),
        ("a.jsonl", '{"text": "first"}\n{"text": "second"}\n'),
        ("a.csv", "text\nfirst\nsecond\n"),
    ],
)
def test_a_byte_order_mark_is_no_part_of_a_text_or_of_a_column(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, "utf-8-sig")
    assert [found.text for found in read_texts(path)] == ["first", "second"]
