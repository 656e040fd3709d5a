"""Which dictionary this is: a digest of the files that define its numbers.

Knows how much of a file it reads. Does not know what is in it.

Files up to `LARGE` bytes are hashed whole. A dictionary of a million features has tens of gigabytes, which would be
read at every start; of such a file the first and last megabyte (with the header and, in most layouts, the biases) and
1024 blocks of 16 KiB at even distances are hashed, with its name and size, and all biases and thresholds, which are
small and may lie between the blocks. Another dictionary, a fine-tuned one or one with other number types differs in
all of these blocks. What it cannot see is an edit of a few numbers between them: a
lock pins the dictionary against mistakes, and whoever can write its files can change the lock's digest as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

LARGE = 1 << 31
"""Bytes of a file above which it is sampled: 2 GiB, about four seconds of hashing."""
_EDGE = 1 << 20
_BLOCK = 1 << 14
_BLOCKS = 1024


def digest(
    files: Sequence[Path],
    facts: Sequence[str] = (),
    vectors: Sequence[Tensor] = (),
    *,
    large: int = LARGE,
) -> str:
    """`sha256:` over names, sizes and contents of these files, in the order of their names, and over `facts`.

    `facts` are numbers that the dictionary's arithmetic needs and no file holds, such as `k=50`. `vectors` are its
    biases and thresholds, hashed beside the samples where a file is larger than `large` bytes.
    """
    total = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.name):
        size = path.stat().st_size
        total.update(f"{path.name}\0{size}\0".encode())
        total.update(_whole(path) if size <= large else _sampled(path, size))
    for fact in facts:
        total.update(f"\0{fact}\0".encode())
    if sampled(files, large=large):
        for vector in vectors:
            total.update(vector.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return f"sha256:{total.hexdigest()}"


def sampled(files: Sequence[Path], *, large: int = LARGE) -> bool:
    """True where a file is so large that its digest is of samples."""
    return any(path.stat().st_size > large for path in files)


def _whole(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _sampled(path: Path, size: int) -> bytes:
    found = hashlib.sha256(b"samples\0")
    with path.open("rb", buffering=0) as file:
        found.update(file.read(_EDGE))
        for number in range(_BLOCKS):
            file.seek(size * number // _BLOCKS)
            found.update(file.read(_BLOCK))
        file.seek(max(0, size - _EDGE))
        found.update(file.read(_EDGE))
    return found.digest()
