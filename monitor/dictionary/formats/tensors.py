"""The named contents of one weights file, checked as they are taken out as matrices, vectors or numbers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from monitor.dictionary.formats.files import read_weights
from monitor.dictionary.storage.matrix import Matrix
from monitor.dictionary.storage.tensor_file import FileTensor
from monitor.errors import DictionaryError


class Tensors:
    """The tensors and plain values in the weights file at `path`. DictionaryError where the file is broken."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found = read_weights(path)

    @property
    def names(self) -> frozenset[str]:
        """Every name in the file."""
        return frozenset(self._found)

    def require(self, names: Iterable[str], optional: Iterable[str] = (), *, kind: str) -> None:
        """Raise DictionaryError unless the file has all of `names`, and nothing else but `optional`.

        `kind` says in the message what has these tensors, such as "a Gemma Scope dictionary".
        """
        wanted = set(names)
        missing, unknown = wanted - self.names, self.names - wanted - set(optional)
        if missing or unknown:
            raise DictionaryError(
                f"{self.path}: {kind} has the tensors {', '.join(sorted(wanted))}; missing here: "
                f"{', '.join(sorted(missing)) or 'none'}; unknown: {', '.join(sorted(unknown)) or 'none'}"
            )

    def matrix(self, name: str, *, transposed: bool = False, like: Matrix | None = None) -> Matrix:
        """The matrix `[features, d_model]`, stored as `[d_model, features]` where `transposed`.

        Raises DictionaryError where the file has no such matrix, or its shape is not that of `like`.
        """
        found = Matrix(self._tensor(name, 2), f"{self.path}: {name}", transposed)
        if like is not None and found.shape != like.shape:
            raise DictionaryError(
                f"{self.path}: {name} has {found.shape[0]} features of width {found.shape[1]}, and {like.name} has "
                f"{like.shape[0]} of width {like.shape[1]}; they are not encoder and decoder of one hook point"
            )
        return found

    def vector(self, name: str, length: int) -> Tensor:
        """The vector `[length]` in float32. DictionaryError where its length differs or a value is not finite."""
        stored = self._tensor(name, 1)
        if stored.shape[0] != length:
            raise DictionaryError(
                f"{self.path}: {name} has shape {tuple(stored.shape)}; it must be {(length,)}"
            )
        return self._finite(name, _numbers(stored))

    def number(self, name: str) -> float:
        """One number, stored as a plain value or as a tensor with one element. DictionaryError where it is neither."""
        value = self._found.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, Tensor | FileTensor):
            numbers = self._finite(name, _numbers(value))
            if numbers.numel() == 1:
                return float(numbers.reshape(()))
        raise DictionaryError(f"{self.path}: {name} must be one number")

    def per_feature(self, name: str, features: int) -> Tensor:
        """`[features]` in float32, stored as one number per feature or as one number for all."""
        value = self._found.get(name)
        if isinstance(value, Tensor | FileTensor) and len(value.shape) == 1 and value.shape[0] == features:
            return self.vector(name, features)
        return torch.full((features,), self.number(name))

    def plain(self, name: str, default: Any = None) -> Any:
        """A value of a pickled file that is not a tensor."""
        return self._found.get(name, default)

    def _tensor(self, name: str, dimensions: int) -> FileTensor | Tensor:
        found = self._found.get(name)
        if not isinstance(found, Tensor | FileTensor):
            raise DictionaryError(f"{self.path} has no tensor {name}; it has {', '.join(sorted(self.names))}")
        if len(found.shape) != dimensions:
            raise DictionaryError(
                f"{self.path}: {name} has shape {tuple(found.shape)}; it must have {dimensions} dimensions"
            )
        return found

    def _finite(self, name: str, numbers: Tensor) -> Tensor:
        if not bool(torch.isfinite(numbers).all()):
            raise DictionaryError(f"{self.path}: {name} holds values that are not finite")
        return numbers


def _numbers(stored: FileTensor | Tensor) -> Tensor:
    return (stored.read() if isinstance(stored, FileTensor) else stored).float()
