"""Rows of ids from files: shares, pieces, held-out pieces, and files that are refused."""

import json
import lzma
from itertools import islice

import pytest

from monitor.dictionary.packed_text import characters_of
from monitor.dictionary.training import text
from monitor.dictionary.training.text import PIECE, TextSource, documents, mixed, pieces
from monitor.errors import ConfigurationError


def lines(path, texts):
    data = "".join(json.dumps({"text": t}) + "\n" for t in texts)
    if path.name.endswith(".xz"):
        path.write_bytes(lzma.compress(data.encode()))
    else:
        path.write_text(data)
    return path


def test_documents(tmp_path):
    assert list(documents(lines(tmp_path / "a.jsonl.xz", ["x", "y"]))) == ["x", "y"]
    assert list(documents(lines(tmp_path / "a.jsonl", ["é", ""]))) == ["é", ""]
    (tmp_path / "a.txt").write_text("one\n\ntwo")
    assert list(documents(tmp_path / "a.txt")) == ["one\n\ntwo"]


WRONG = ("nonsense", "[1]", '{"content": "x"}', '{"text": 3}', '{"text": "\\ud800"}', "[" * 100_000)


@pytest.mark.parametrize("line", WRONG, ids=range(len(WRONG)))
def test_a_line_that_is_no_text_is_named(tmp_path, line):
    (tmp_path / "a.jsonl").write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(ConfigurationError, match=r"a\.jsonl:2: each line"):
        list(documents(tmp_path / "a.jsonl"))


def test_held_out_and_trained_pieces_share_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "PIECE", 10)
    path = lines(tmp_path / "a.jsonl", [f"{n:04d}" * 4 for n in range(200)])
    trained, held = list(pieces(path, held_out=False)), list(pieces(path, held_out=True))
    assert len(trained) + len(held) == 400
    assert len(held) == 400 // text.HELD_OUT
    assert all(len(piece) <= 10 for piece in trained)


def test_shares(tmp_path):
    one = lines(tmp_path / "one.jsonl", [f"a{'-' * 99}"] * 300)
    two = lines(tmp_path / "two.jsonl", [f"b{'-' * 9}"] * 300)
    given = {"a": 0, "b": 0}
    for piece in islice(mixed([TextSource(one, 3.0), TextSource(two, 1.0)]), 600):
        given[piece[0]] += len(piece)
    assert given["a"] / given["b"] == pytest.approx(3, rel=0.05)


def test_a_file_that_is_used_up_begins_again(tmp_path):
    path = lines(tmp_path / "a.jsonl", ["x", "y"])
    assert list(islice(mixed([TextSource(path)]), 5)) == ["x", "y", "x", "y", "x"]


def test_an_empty_file_is_refused(tmp_path):
    path = lines(tmp_path / "a.jsonl", [])
    with pytest.raises(ConfigurationError, match="no text to train on"):
        next(mixed([TextSource(path)]))


@pytest.mark.parametrize("blank", ["", "\n", " \n" * 5000])
def test_a_file_without_text_does_not_keep_the_held_out_pieces_waiting(tmp_path, blank):
    (tmp_path / "a.txt").write_text(blank)
    for held_out in (True, False):
        with pytest.raises(ConfigurationError, match="no text to train on"):
            next(mixed([TextSource(tmp_path / "a.txt")], held_out=held_out))


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "latin.jsonl").write_bytes(b'{"text": "caf\xe9"}\n')
    (tmp_path / "other.jsonl.xz").write_bytes(b"no xz at all")
    whole = lines(tmp_path / "cut.jsonl.xz", [f"{n} {n * n}" for n in range(2000)])
    whole.write_bytes(whole.read_bytes()[:-200])
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(ConfigurationError, match=rf"{path.name} cannot be read"):
            list(documents(path))


def test_sources_are_parsed(tmp_path):
    path = lines(tmp_path / "a.jsonl", ["x"])
    assert TextSource.parse(str(path)) == TextSource(path, 1.0)
    assert TextSource.parse(f"{path}=0.25") == TextSource(path, 0.25)
    odd = lines(tmp_path / "k=v.jsonl", ["x"])
    assert TextSource.parse(str(odd)) == TextSource(odd, 1.0)
    for wrong in (f"{path}=0", str(tmp_path / "none"), f"{path}=-1"):
        with pytest.raises(ConfigurationError):
            TextSource.parse(wrong)
    (tmp_path / "b.bin").write_text("")
    with pytest.raises(ConfigurationError, match="expected a file"):
        TextSource.parse(str(tmp_path / "b.bin"))


def test_conversations_are_whole_pieces(tmp_path):
    turns = [{"role": "user", "content": "x" * (PIECE + 1)}, {"role": "assistant", "content": "y"}]
    path = tmp_path / "talk.jsonl"
    path.write_text(json.dumps({"messages": turns}) + "\n" + json.dumps({"text": "z" * (PIECE + 1)}) + "\n")
    assert next(documents(path)) == tuple(turns)
    assert [characters_of(piece) for piece in pieces(path, held_out=False)] == [PIECE + 2, PIECE, 1]
    assert next(mixed([TextSource(path)])) == tuple(turns)
