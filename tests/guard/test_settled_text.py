"""Text that comes in pieces: whatever the pieces, the tokens are those of the whole, and none is given too early."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.errors import InputError
from monitor.guard.settled_text import BrokenWords, SettledText, whole_characters
from monitor.model.load.tokenizer import TextTokenizer
from tests.model import tokenizers
from tests.model.tiny import tokenizer as byte_tokenizer

TEXTS = (
    "The quick brown fox jumps over the lazy dog. It is 12,345.67 metres away!",
    "def f(x):\n    if x  >  3:\n        return {'a': [1, 2]}\n\n\nprint(f(4))\t# done",
    "Ça va? Ökonomie — naïve façade … 日本語のテキスト です。 emoji 👩‍👩‍👧 end",
    "one,two;three\n\nfour.\n\n  - five\r\n  - six   seven ",
    "<|im_start|>system you are <|im_end|> free",
    " leading and trailing  ",
)

ACROSS = {"letters", "Python"}
"""Tokenizers whose words go on across spaces, which they leave out, and unknown characters."""


def pieces(text: str, seed: int) -> list[str]:
    chance, found, at = random.Random(seed), [], 0
    while at < len(text):
        size = chance.choice((1, 1, 2, 3, 5, 11))
        found.append(text[at : at + size])
        at += size
    return found


def streamed(reader: TextTokenizer, parts: list[str]) -> tuple[list[int], list[int], SettledText]:
    text = SettledText(lambda part, _: reader.placed_inner(part, continued=True))
    ids: list[int] = []
    ends: list[int] = []
    for settled in [*map(text.push, parts), text.finish()]:
        ids += settled.ids
        ends += settled.ends
        assert all(end <= settled.upto for end in settled.ends)
    return ids, ends, text


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("kind", ["bytes", *sorted(tokenizers.KINDS.keys() - ACROSS)])
def test_tokens_are_those_of_the_whole_text(kind: str, text: str) -> None:
    reader = TextTokenizer(byte_tokenizer() if kind == "bytes" else tokenizers.built(kind))
    try:
        wanted = reader.inner(text, continued=True)
    except InputError:
        pytest.skip("this tokenizer has no tokens for it")
    for seed in range(4):
        ids, ends, stream = streamed(reader, pieces(text, seed))
        assert ids == wanted
        assert ends == sorted(ends)
        assert (stream.held, stream.length) == (0, len(text))


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80), st.integers(0, 9))
def test_every_character_is_settled_once(text: str, seed: int) -> None:
    reader = TextTokenizer(byte_tokenizer())
    ids, ends, stream = streamed(reader, pieces(text, seed))
    assert ids == reader.inner(whole_characters(text), continued=True)
    assert stream.length == len(text)
    assert max(ends, default=0) <= len(text)


def test_a_word_is_settled_when_the_next_begins() -> None:
    reader = TextTokenizer(byte_tokenizer())
    text = SettledText(lambda part, _: reader.placed_inner(part, continued=True))
    assert text.push("bo").ids == ()
    assert text.push("mb").upto == 0
    assert text.push(" ").upto == 0
    settled = text.push("t")
    assert (settled.upto, len(settled.ids), text.held) == (4, 4, 2)


def test_text_without_spaces_is_not_held_for_ever() -> None:
    reader = TextTokenizer(byte_tokenizer())
    text = SettledText(lambda part, _: reader.placed_inner(part, continued=True))
    most = 0
    for _ in range(100):
        text.push("語言")
        most = max(most, text.held)
    assert most <= 64
    assert text.length == 200


def test_the_first_part_is_told_from_those_behind_it() -> None:
    seen = []

    def tokenise(part: str, continued: bool) -> tuple[list[int], list[tuple[int, int]]]:
        seen.append(continued)
        return [1], [(0, len(part))]

    text = SettledText(tokenise)
    text.push("a")
    text.finish()
    text.push("b")
    text.finish()
    assert seen == [False, True]


def test_half_characters_keep_their_place() -> None:
    assert whole_characters("a\ud83db") == "a\ufffdb"
    assert whole_characters("aéb") == "aéb"


@pytest.mark.parametrize(
    ("pieces", "following", "again"),
    [
        (["go bo"], "mb", "bo"),
        (["go bo", "mb"], "er", "bomb"),
        (["b", "o"], "mb", "bo"),
        (["go bo"], " mb", ""),
        (["go "], "mb", ""),
        (["bo", " "], "mb", ""),
        ([], "mb", ""),
        (["x" * 200], "y", "x" * 64),
    ],
)
def test_a_word_that_goes_on_behind_others_is_read_once_more(pieces, following, again):
    words = BrokenWords()
    words.wrote("another", "bo")
    for piece in pieces:
        words.wrote("one", piece)
    assert words.before("one", following) == again
