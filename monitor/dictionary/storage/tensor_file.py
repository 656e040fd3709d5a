"""A tensor that lies in a file, read in part.

Knows offsets, number types and how to read few rows or few columns of a large matrix. Does not know file formats
(`formats`) nor what the numbers mean.

Rows are read with `pread`, not through a memory map: a map of a matrix stored `[d_model, features]` would touch a
page, and the kernel map its neighbours too, for every number of a feature, hundreds of megabytes per feature.
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
"""Reads in flight where each is a few bytes: what hides a disk's latency, not the processor's work."""
_PAGE = 4096


@dataclass(frozen=True)
class FileTensor:
    """Numbers of one type, in row-major order, at an offset of a file."""

    path: Path
    name: str
    """What it is called in the file, for messages."""
    offset: int
    """Bytes from the beginning of the file."""
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size in the file."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> Tensor:
        """All of it, in its own type. DictionaryError where the file is too short."""
        with self._opened() as file:
            return self._read(file, 0, self.shape)

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """First index and `[some, …]` of consecutive parts along the first axis, about 64 MB each."""
        row = max(1, self.nbytes // max(1, self.shape[0]))
        step = max(1, _CHUNK_BYTES // row)
        with self._opened() as file:
            for start in range(0, self.shape[0], step):
                count = min(step, self.shape[0] - start)
                yield start, self._read(file, start * row, (count, *self.shape[1:]))

    def rows(self, indices: Sequence[int]) -> Tensor:
        """`[len(indices), width]` of a matrix."""
        width = self.shape[1]
        size = width * self.dtype.itemsize
        if not indices:
            return torch.empty(0, width, dtype=self.dtype)
        with self._opened() as file:
            runs = _runs(indices)
            return torch.cat([self._read(file, first * size, (count, width)) for first, count in runs])

    def columns(self, indices: Sequence[int]) -> Tensor:
        """`[height, len(indices)]` of a matrix: run by run where they are few, else all of it in parts."""
        runs = _runs(indices)
        if len(runs) * _PAGE > self.shape[1] * self.dtype.itemsize:
            wanted = torch.tensor(indices)
            return torch.cat([block[:, wanted] for _, block in self.blocks()])
        step = -(-self.shape[0] // _READERS)
        starts = range(0, self.shape[0], step)
        with self._opened() as file, ThreadPoolExecutor(_READERS) as pool:
            if hasattr(os, "posix_fadvise"):  # the pages behind each number are of no use
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
            parts = pool.map(lambda start: self._picked(file, runs, start, step), starts)
            return torch.cat(list(parts))

    def _picked(self, file: int, runs: list[tuple[int, int]], start: int, step: int) -> Tensor:
        """Rows `start` to `start + step` of the columns, `[some, all runs together]`."""
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
        """The numbers of this shape that begin `start` bytes into the tensor."""
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
            raise DictionaryError(f"{self.path} cannot be read any more: {error.strerror}") from error
        try:
            yield file
        finally:
            os.close(file)


def _runs(indices: Sequence[int]) -> list[tuple[int, int]]:
    """First index and length of each stretch of indices that follow one another."""
    found: list[tuple[int, int]] = []
    for index in indices:
        if found and index == sum(found[-1]):
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((index, 1))
    return found
