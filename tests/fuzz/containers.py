"""Mutations inside of containers, with lengths and checksums put right, so that more is reached."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from collections.abc import Sequence

from tests.fuzz.mutate import mutated

SAFETENSORS_WORDS = (
    b'"dtype":"F32"',
    b'"shape":[',
    b'"data_offsets":[',
    b"18446744073709551615",
    b'"I64"',
    b'"F8_E4M3"',
)
PICKLE_WORDS = (
    b"cposix\nsystem\n",
    b"cbuiltins\neval\n",
    b"\x80\x02",
    b".",
    b"q\x01",
    b"X\xff\xff\xff\x7f",
    b"ctorch\n_utils\n",
)
_MEMBERS_WORDS = (
    b"\x93NUMPY\x01\x00",
    b"'descr': '|O'",
    b"'shape': (",
    b"'fortran_order': True",
    b"'<f4'",
    *PICKLE_WORDS,
)


def safetensors(data: bytes, chance: random.Random, corpus: Sequence[bytes]) -> bytes:
    """The header changed and its length put right."""
    if len(data) < 8:
        return data
    (length,) = struct.unpack("<Q", data[:8])
    header, rest = data[8 : 8 + length], data[8 + length :]
    header = mutated(header, chance, corpus, SAFETENSORS_WORDS)
    return struct.pack("<Q", len(header)) + header + rest


def archive(data: bytes, chance: random.Random, corpus: Sequence[bytes]) -> bytes:
    """One member of a zip changed, renamed, doubled or dropped, and the zip made anew."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as found:
            members = [(info.filename, found.read(info), info.compress_type) for info in found.infolist()]
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, OSError, RuntimeError):
        return mutated(data, chance, corpus, PICKLE_WORDS)
    if not members:
        return data
    at = chance.randrange(len(members))
    name, content, kind = members[at]
    change = chance.random()
    if change < 0.8:
        members[at] = (name, mutated(content[:4096], chance, corpus, _MEMBERS_WORDS) + content[4096:], kind)
    elif change < 0.9:
        members[at] = (name + chance.choice(("x", "/../../y.npy", "", ".npy")), content, kind)
    else:
        del members[at]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name, content, kind in members:
            if name:
                made.writestr(zipfile.ZipInfo(name), content, compress_type=kind)
    return out.getvalue()
