"""The digest of a dictionary, which identifies it: a hash over the files that define its numbers.

Files of up to `LARGE` bytes are hashed whole. A dictionary of a million features has tens of gigabytes, too much to
read at every start. Of a larger file, these parts are hashed: name and size, the first and last megabyte (which hold
the header and, in most layouts, the biases), 1024 blocks of 16 KiB at even distances, and all biases and thresholds,
which may lie between the blocks.

A different dictionary, a fine-tuned one or one of another number type differs in all of these blocks. An edit of a
few numbers between the blocks is not detected. A lock guards against mistakes, not against an attacker: whoever can
write the dictionary's files can also change the digest in the lock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

LARGE = 1 << 31
"""Size in bytes above which a file is sampled: 2 GiB, about four seconds of hashing."""
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
    """`sha256:` and the hash of these files' names, sizes and contents, in the order of their names, and of `facts`.

    Args:
        files: the files that define the dictionary's numbers.
        facts: numbers that encoding needs and no file holds, such as `k=50`.
        vectors: biases and thresholds; hashed only where a file is sampled.
        large: size in bytes above which a file is sampled.
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
    """True where one of the files is so large that its digest covers samples of it only."""
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
