import io
import sys

import pytest

from monitor.cli.input import as_input, as_sampling, read_text
from monitor.errors import InputError
from monitor.v1 import monitor_pb2 as pb


class Stdin:
    def __init__(self, data):
        self.buffer = io.BytesIO(data)


def test_argument_file_and_standard_input_give_the_same(tmp_path, monkeypatch):
    text = "Grüße,\nworld \U0001f600\n"
    path = tmp_path / "text"
    path.write_bytes(text.encode())
    monkeypatch.setattr(sys, "stdin", Stdin(text.encode()))
    assert read_text(text, None) == read_text("-", None) == read_text(None, path) == text


def test_invalid_bytes_are_named_by_offset_and_line(tmp_path):
    path = tmp_path / "latin1.txt"
    path.write_bytes(b"line one\ncaf\xe9 au lait")
    with pytest.raises(InputError) as caught:
        read_text(None, path)
    assert f"{path} is not valid UTF-8: byte 0xe9 at offset 12 (line 2)" in str(caught.value)


def test_invalid_bytes_of_an_argument_are_named_too():
    with pytest.raises(InputError, match=r"TEXT is not valid UTF-8: byte 0xff at offset 2"):
        read_text(b"ab\xff".decode("utf-8", "surrogateescape"), None)


@pytest.mark.parametrize(("text", "named"), [("", "TEXT"), ("-", "standard input")])
def test_nothing_is_an_error(text, named, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Stdin(b""))
    with pytest.raises(InputError, match=f"{named} is empty"):
        read_text(text, None)


def test_one_source_exactly(tmp_path):
    for text, file in ((None, None), ("a", tmp_path / "b")):
        with pytest.raises(InputError, match="either TEXT"):
            read_text(text, file)


def test_a_missing_file_and_a_folder_are_errors(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_text(None, tmp_path / "none")
    with pytest.raises(InputError, match="directory"):
        read_text(None, tmp_path)


def test_a_conversation_is_only_made_when_asked_for():
    assert as_input("hi", chat=False, system=None, truncate=True) == pb.Input(text="hi", truncate=True)
    made = as_input("hi", chat=True, system="be kind", truncate=False)
    assert [(m.role, m.content) for m in made.conversation.messages] == [
        (pb.ROLE_SYSTEM, "be kind"),
        (pb.ROLE_USER, "hi"),
    ]
    with pytest.raises(InputError, match="add --chat"):
        as_input("hi", chat=False, system="be kind", truncate=False)


def test_sampling_leaves_out_what_is_not_given():
    assert as_sampling(max_new_tokens=None, seed=0, stop=["x"]) == pb.Sampling(seed=0, stop=["x"])
    assert not as_sampling(temperature=None, stop=None).HasField("temperature")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"max_new_tokens": 2**31}, "--max-new-tokens: 2147483648"),
        ({"seed": -(2**63) - 1}, "--seed: -9223372036854775809"),
        ({"stop": ["\udcff"]}, "--stop"),
    ],
)
def test_sampling_that_cannot_be_sent(given, said):
    with pytest.raises(InputError, match=said):
        as_sampling(**given)


def test_a_system_turn_must_be_text():
    with pytest.raises(InputError, match="--system is not valid UTF-8: byte 0xff at offset 0"):
        as_input("hi", chat=True, system="\udcff", truncate=False)


def test_a_byte_order_mark_is_not_scored(tmp_path, monkeypatch):
    path = tmp_path / "text"
    path.write_text("hello", "utf-8-sig")
    monkeypatch.setattr(sys, "stdin", Stdin(path.read_bytes()))
    assert read_text(None, path) == read_text("-", None) == read_text("\ufeffhello", None) == "hello"
    made = as_input("hi", chat=True, system="\ufeffbe kind", truncate=False)
    assert made.conversation.messages[0].content == "be kind"


def test_a_byte_order_mark_alone_is_nothing(tmp_path):
    path = tmp_path / "text"
    path.write_text("", "utf-8-sig")
    with pytest.raises(InputError, match="is empty"):
        read_text(None, path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf_16_is_named(tmp_path, encoding):
    path = tmp_path / "text"
    path.write_text("hello, world", encoding)
    with pytest.raises(
        InputError, match=r"is not valid UTF-8: UTF-(16|32) at offset 0 \(line 1\); convert it first"
    ):
        read_text(None, path)
