"""Files of texts that cannot be read: named, with the reason, whatever they are read for."""

import gzip
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
