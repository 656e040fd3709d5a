"""`Matrix`: a dictionary's encoder or decoder with one row per feature, in memory or in a file, transposed or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from monitor.dictionary.storage.tensor_file import FileTensor
from monitor.errors import DictionaryError


@dataclass(frozen=True)
class Matrix:
    """A matrix `[features, d_model]`, read as float32 whatever its stored type.

    Reading raises DictionaryError where a number is not finite.
    """

    stored: FileTensor | Tensor
    """`[features, d_model]`, or `[d_model, features]` where `transposed`."""
    name: str
    """File and tensor name, for messages."""
    transposed: bool = False
    factor: Tensor | None = None
    """`[features]`: the factor by which each row is multiplied when it is read."""

    @property
    def shape(self) -> tuple[int, int]:
        """(features, d_model)."""
        first, second = self.stored.shape
        return (second, first) if self.transposed else (first, second)

    @property
    def lazy(self) -> bool:
        """True where the numbers are in a file."""
        return isinstance(self.stored, FileTensor)

    @property
    def nbytes(self) -> int:
        """Memory that the whole matrix takes in float32, in bytes."""
        return 4 * self.shape[0] * self.shape[1]

    def times(self, factor: Tensor | float) -> Matrix:
        """The matrix with each row multiplied by `factor`, which is `[features]` or one number."""
        new = torch.as_tensor(factor, dtype=torch.float32).expand(self.shape[0])
        return replace(self, factor=new if self.factor is None else self.factor * new)

    def rows(self, features: Sequence[int]) -> Tensor:
        """The rows of these features, `[len(features), d_model]`. IndexError where a feature does not exist."""
        if not all(0 <= feature < self.shape[0] for feature in features):
            raise IndexError(f"{self.name} has features 0 to {self.shape[0] - 1}")
        picked = self._columns(features).T if self.transposed else self._rows(features)
        found = self._checked(picked.float())
        return found if self.factor is None else found * self.factor[list(features)].unsqueeze(1)

    def whole(self) -> Tensor:
        """All rows, `[features, d_model]`, contiguous. Files are read in parts, so that memory holds one copy only."""
        out = torch.empty(self.shape)
        for start, block in self._blocks():
            part = self._checked(block.float())
            if self.transposed:
                out[:, start : start + len(part)] = part.T
            else:
                out[start : start + len(part)] = part
        return out if self.factor is None else out.mul_(self.factor.unsqueeze(1))

    def norms(self) -> Tensor:
        """The norm of every row, `[features]` in float32. This reads the whole matrix once."""
        squares = torch.zeros(self.shape[0], dtype=torch.float64)
        for start, block in self._blocks():
            part = self._checked(block.float()).square()
            if self.transposed:
                squares += part.sum(0, dtype=torch.float64)
            else:
                squares[start : start + len(part)] = part.sum(1, dtype=torch.float64)
        found = squares.sqrt().float()
        return found if self.factor is None else found * self.factor.abs()

    def _blocks(self) -> Iterator[tuple[int, Tensor]]:
        if isinstance(self.stored, FileTensor):
            yield from self.stored.blocks()
        else:
            step = max(1, (1 << 24) // max(1, self.stored.shape[1]))
            for start in range(0, self.stored.shape[0], step):
                yield start, self.stored[start : start + step]

    def _rows(self, features: Sequence[int]) -> Tensor:
        if isinstance(self.stored, FileTensor):
            return self.stored.rows(features)
        return self.stored[list(features)]

    def _columns(self, features: Sequence[int]) -> Tensor:
        if isinstance(self.stored, FileTensor):
            return self.stored.columns(features)
        return self.stored[:, list(features)]

    def _checked(self, numbers: Tensor) -> Tensor:
        if not bool(torch.isfinite(numbers).all()):
            raise DictionaryError(f"{self.name} holds values that are not finite")
        return numbers
