"""`FileTensor`: a tensor in a file, of which single rows, columns or blocks can be read.

It reads with `pread`, not through a memory map. In a matrix stored `[d_model, features]`, the numbers of one feature
lie on d_model different pages; a memory map would load each of these pages and its neighbours, hundreds of megabytes
per feature.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from monitor.errors import DictionaryError

_CHUNK_BYTES = 1 << 26
_READERS = 16
"""Number of threads that read single numbers. Each read waits for the disk, so more threads than cores are useful."""
_PAGE = 4096


@dataclass(frozen=True)
class FileTensor:
    """A tensor stored in row-major order at an offset of a file.

    Every method that reads raises DictionaryError where the file is too short or cannot be opened.
    """

    path: Path
    name: str
    """File and tensor name, for messages."""
    offset: int
    """Where the tensor begins, in bytes from the beginning of the file."""
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size in the file, in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> Tensor:
        """The whole tensor, in its stored type."""
        with self._opened() as file:
            return self._read(file, 0, self.shape)

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """Consecutive parts along the first axis, about 64 MB each, with the index of each part's first row."""
        row = max(1, self.nbytes // max(1, self.shape[0]))
        step = max(1, _CHUNK_BYTES // row)
        with self._opened() as file:
            for start in range(0, self.shape[0], step):
                count = min(step, self.shape[0] - start)
                yield start, self._read(file, start * row, (count, *self.shape[1:]))

    def rows(self, indices: Sequence[int]) -> Tensor:
        """Rows `[len(indices), width]` of a matrix."""
        width = self.shape[1]
        size = width * self.dtype.itemsize
        if not indices:
            return torch.empty(0, width, dtype=self.dtype)
        with self._opened() as file:
            runs = _runs(indices)
            return torch.cat([self._read(file, first * size, (count, width)) for first, count in runs])

    def columns(self, indices: Sequence[int]) -> Tensor:
        """Columns `[height, len(indices)]` of a matrix.

        Few columns are read number by number; for many, the whole matrix is read in blocks.
        """
        runs = _runs(indices)
        if len(runs) * _PAGE > self.shape[1] * self.dtype.itemsize:
            wanted = torch.tensor(indices)
            return torch.cat([block[:, wanted] for _, block in self.blocks()])
        step = -(-self.shape[0] // _READERS)
        starts = range(0, self.shape[0], step)
        with self._opened() as file, ThreadPoolExecutor(_READERS) as pool:
            if hasattr(os, "posix_fadvise"):  # reading ahead would load pages that are not needed
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
            parts = pool.map(lambda start: self._picked(file, runs, start, step), starts)
            return torch.cat(list(parts))

    def _picked(self, file: int, runs: list[tuple[int, int]], start: int, step: int) -> Tensor:
        """The columns in `runs` of rows `start` to `start + step`: `[rows, columns]`."""
        size, width = self.dtype.itemsize, self.shape[1]
        columns, stop = sum(count for _, count in runs), min(start + step, self.shape[0])
        found = bytearray()
        for row in range(start, stop):
            base = self.offset + row * width * size
            for first, count in runs:
                found += os.pread(file, count * size, base + first * size)
        if len(found) != (stop - start) * columns * size:
            raise self._short()
        return torch.frombuffer(found, dtype=self.dtype).view(stop - start, columns)

    def _read(self, file: int, start: int, shape: tuple[int, ...]) -> Tensor:
        """A tensor of this shape, read from `start` bytes into the stored tensor."""
        out = torch.empty(shape, dtype=self.dtype)
        if not out.numel():
            return out
        view, done = out.view(-1).view(torch.uint8).numpy().data, 0
        while done < len(view):
            got = os.preadv(file, [view[done : done + _CHUNK_BYTES]], self.offset + start + done)
            if not got:
                raise self._short()
            done += got
        return out

    def _short(self) -> DictionaryError:
        return DictionaryError(
            f"{self.path} ends before {self.name} does; it was probably cut short: download it again"
        )

    @contextmanager
    def _opened(self) -> Iterator[int]:
        try:
            file = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise DictionaryError(
                f"{self.path} can no longer be read ({error.strerror}); restore the file, and load the dictionary again"
            ) from error
        try:
            yield file
        finally:
            os.close(file)


def _runs(indices: Sequence[int]) -> list[tuple[int, int]]:
    """First index and length of each run of consecutive indices."""
    found: list[tuple[int, int]] = []
    for index in indices:
        if found and index == sum(found[-1]):
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((index, 1))
    return found
