"""Byte order marks and encodings of texts that people save."""

import pytest

from monitor import utf8


@pytest.mark.parametrize(
    "text", ["", "plain", "Grüße\n\U0001f600", "a\ufeffb", "\x00", "a\x00", "\x00\x00\x00\x00", "中文"]
)
def test_a_text_is_what_was_written_with_or_without_a_mark(text):
    assert utf8.decode(text.encode()) == text
    assert utf8.decode(text.encode("utf-8-sig")) == text


def test_only_one_mark_is_no_part_of_the_text():
    assert utf8.decode("\ufeff\ufeffa".encode()) == "\ufeffa"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_other_encodings_are_named_and_say_what_to_do(encoding, mark):
    if encoding.startswith("utf-32") and not (mark or encoding == "utf-32"):
        pytest.skip("nobody saves UTF-32 without a mark")
    with pytest.raises(
        utf8.NotUtf8, match=r"is UTF-(16|32), not UTF-8; convert it, for example with `iconv"
    ) as caught:
        utf8.decode((mark + "apiVersion: monitor/v1\n").encode(encoding))
    assert (caught.value.line, caught.value.column) == (1, 1)


def test_a_wrong_byte_is_named_with_its_place():
    with pytest.raises(utf8.NotUtf8, match="byte 0xe9 is not UTF-8; save the text as UTF-8") as caught:
        utf8.decode(b"line one\ncaf\xe9 au lait")
    assert (caught.value.offset, caught.value.line, caught.value.column) == (12, 2, 4)
