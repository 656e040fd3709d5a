"""Mutations of bytes: flips, cuts, copies, numbers at their limits, words that mean something to the reader.

Every mutation is a function of its random source, so that a seed repeats a case.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence

LARGEST = 64 << 10
"""Bytes of a mutated input; larger ones only test patience."""

WORDS = (
    b"", b"\0", b"\xff\xff\xff\xff", b"\x80", b"{}", b"[]", b"null", b"true", b"-1", b"0", b"1e999", b"NaN", b"-0.0",
    b"9" * 40, b"1" * 5000, b"../", b"\xe2\x80\xae", b"\xed\xa0\x80", b"\r\n", b"\n\n", b"\t", b": ", b"- ",
    b"&a", b"*a",
    b"!!python/object", b"<<: ", b"? ", b"|\n", b"%YAML 9.9\n", b"---\n", b"...\n", b"[" * 200, b"{" * 200, b"}" * 50,
    b'"', b"'", b"#", b"\\u0000", b"\\ud800", b"0x7fffffffffffffff", b".inf", b"1_000", b"2026-01-01",
    b"$(id)", b"%s%n",
)  # fmt: skip
NUMBERS = (0, 1, -1, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1)
_SIZES = ((1, "b"), (2, "<h"), (4, "<i"), (8, "<q"), (4, ">i"), (8, ">q"))

Mutation = Callable[[bytearray, random.Random, Sequence[bytes]], None]


def mutated(
    data: bytes, chance: random.Random, corpus: Sequence[bytes], words: Sequence[bytes] = ()
) -> bytes:
    """One to eight mutations of an input; `words` are the reader's own beside WORDS."""
    body, known = bytearray(data), [*WORDS, *words, *words]
    for _ in range(chance.choice((1, 1, 1, 2, 4, 8))):
        chance.choice(_MUTATIONS)(body, chance, known)
    if chance.random() < 0.1 and corpus:
        other = chance.choice(corpus)
        body[_place(body, chance) :] = other[chance.randrange(len(other) + 1) :]
    return bytes(body[:LARGEST])


def _flip(body: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    if body:
        body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)


def _byte(body: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    if body:
        body[chance.randrange(len(body))] = chance.randrange(256)


def _cut(body: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    start = _place(body, chance)
    del body[start : start + _length(chance)]


def _end(body: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    del body[_place(body, chance) :]


def _copy(body: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    start = _place(body, chance)
    piece = body[start : start + _length(chance)]
    at = _place(body, chance)
    body[at:at] = piece * (1 if chance.random() < 0.9 else 50)


def _word(body: bytearray, chance: random.Random, known: Sequence[bytes]) -> None:
    at = _place(body, chance)
    word = chance.choice(known)
    body[at : at + (len(word) if chance.random() < 0.5 else 0)] = word


def _number(body: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    size, form = chance.choice(_SIZES)
    value = chance.choice(NUMBERS)
    if -(2 ** (8 * size - 1)) <= value < 2 ** (8 * size - 1):
        at = _place(body, chance)
        body[at : at + size] = struct.pack(form, value)


def _digits(body: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    """Another number where a decimal number stands."""
    places = [at for at in range(len(body)) if body[at : at + 1].isdigit()][:200]
    if not places:
        return
    start = end = chance.choice(places)
    while end < len(body) and body[end : end + 1].isdigit():
        end += 1
    body[start:end] = str(chance.choice(NUMBERS)).encode()


def _line(body: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    """Lines left out, doubled, swapped or indented otherwise."""
    lines = bytes(body).split(b"\n")
    first, second = chance.randrange(len(lines)), chance.randrange(len(lines))
    kind = chance.randrange(4)
    if kind == 0:
        del lines[first]
    elif kind == 1:
        lines.insert(second, lines[first])
    elif kind == 2:
        lines[first], lines[second] = lines[second], lines[first]
    else:
        lines[first] = b"  " + lines[first] if chance.random() < 0.5 else lines[first].lstrip()
    body[:] = b"\n".join(lines)


_MUTATIONS: Sequence[Mutation] = (_flip, _byte, _cut, _end, _copy, _word, _word, _number, _digits, _line)


def _place(body: bytearray, chance: random.Random) -> int:
    return chance.randrange(len(body) + 1)


def _length(chance: random.Random) -> int:
    return 1 << chance.randrange(10)
