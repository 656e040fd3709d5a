"""`StoredAutoencoder`: a large dictionary whose matrices stay on disk, and of which only the named features are read.

An operation that needs all features reads the whole dictionary into memory, or raises DictionaryError where it does
not fit.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import psutil
import torch
from torch import Tensor

from monitor.dictionary.sae import FeatureRow, SparseAutoencoder
from monitor.dictionary.storage.matrix import Matrix
from monitor.errors import DictionaryError

_MATRICES = ("encoder", "decoder", "gate_encoder")
_SHARE = 0.8
"""Largest share of the free memory that a dictionary may take."""

LARGE = 1 << 30
"""Size in bytes of the float32 weights from which on a dictionary stays in its files."""

_log = logging.getLogger(__name__)


def build_autoencoder(matrices: dict[str, Matrix], *, large: int = LARGE, **parts: Any) -> SparseAutoencoder:
    """Build a dictionary from its `matrices` (encoder, decoder, gate_encoder) and its other `parts`.

    It is a `StoredAutoencoder` where the weights take `large` bytes or more and their files can be read in part.
    Otherwise it is read into memory; DictionaryError where it does not fit.
    """
    size = sum(matrix.nbytes for matrix in matrices.values())
    if size >= large and all(matrix.lazy for matrix in matrices.values()):
        return StoredAutoencoder(matrices, parts)
    if size >= large:
        _afford(size, torch.device("cpu"))
    whole: dict[str, Any] = {name: matrix.whole() for name, matrix in matrices.items()}
    return SparseAutoencoder(**whole, **parts)


class StoredAutoencoder(SparseAutoencoder):
    """A dictionary whose matrices are in files. `row` and `select` read only the named features.

    Whatever needs all features (`encode`, `decode`, `encoder`, …) first reads them into memory, where they stay.
    DictionaryError where they do not fit into the free memory.
    """

    def __init__(
        self, matrices: dict[str, Matrix], parts: dict[str, Any], device: torch.device | str = "cpu"
    ) -> None:
        shapes: dict[str, Any] = {
            name: torch.empty(matrix.shape, device="meta") for name, matrix in matrices.items()
        }
        checked = SparseAutoencoder(**shapes, **parts)
        for field in fields(checked):
            if field.name not in _MATRICES:
                value = getattr(checked, field.name)
                moved = value.to(device) if isinstance(value, Tensor) else value
                object.__setattr__(self, field.name, moved)
        object.__setattr__(self, "matrices", matrices)
        object.__setattr__(self, "device", torch.device(device))
        object.__setattr__(self, "_kept", [])
        object.__setattr__(self, "_fetched", {})

    matrices: dict[str, Matrix]
    device: torch.device
    _kept: list[SparseAutoencoder]
    _fetched: dict[int, dict[str, Tensor]]
    """By feature, the rows that `prefetch` has read and `row` has not returned yet."""

    def __repr__(self) -> str:
        """A description without the weights."""
        return f"StoredAutoencoder({self.activation}, features={self.features}, d_model={self.d_model})"

    @property
    def features(self) -> int:
        """Number of features."""
        return self.matrices["encoder"].shape[0]

    @property
    def d_model(self) -> int:
        """Width of the residual stream that this dictionary reads."""
        return self.matrices["encoder"].shape[1]

    @property
    def resident(self) -> bool:
        """True once the whole dictionary is in memory."""
        return bool(self._kept)

    @property
    def cost(self) -> int:
        """Memory that the whole dictionary takes, in bytes."""
        return sum(matrix.nbytes for matrix in self.matrices.values())

    @property
    def encoder(self) -> Tensor:
        """The whole matrix, which is read into memory; see the class."""
        return self.whole().encoder

    @property
    def decoder(self) -> Tensor:
        """The whole matrix, which is read into memory; see the class."""
        return self.whole().decoder

    @property
    def gate_encoder(self) -> Tensor | None:
        """The whole matrix, which is read into memory; see the class."""
        return self.whole().gate_encoder if "gate_encoder" in self.matrices else None

    def row(self, feature: int) -> FeatureRow:
        """The weights of one feature, read from the files."""
        if self._kept:
            return self._kept[0].row(feature)
        fetched = self._fetched.pop(feature, None)
        rows = fetched or {name: found[0] for name, found in self._only([feature]).items()}
        return FeatureRow(
            rows["encoder"],
            self.encoder_bias[feature],
            rows["decoder"],
            None if self.threshold is None else self.threshold[feature],
            rows.get("gate_encoder"),
            None if self.gate_bias is None else self.gate_bias[feature],
        )

    def prefetch(self, features: Sequence[int]) -> None:
        """Read these features in one pass over the files. Each is freed when `row` returns it."""
        wanted = sorted({feature for feature in features if 0 <= feature < self.features})
        if self._kept or len(wanted) < 2:
            return
        only = self._only(wanted)
        for number, feature in enumerate(wanted):
            self._fetched[feature] = {name: found[number] for name, found in only.items()}

    def forget(self) -> None:
        """Free the rows that `prefetch` has read and `row` has not returned."""
        self._fetched.clear()

    def whole(self) -> SparseAutoencoder:
        """The dictionary in memory. It is read once and kept. DictionaryError where it does not fit."""
        if not self._kept:
            _afford(self.cost, self.device)
            _log.warning("reading the whole dictionary into memory: %s in float32", readable_size(self.cost))
            tensors = {name: matrix.whole().to(self.device) for name, matrix in self.matrices.items()}
            self._kept.append(SparseAutoencoder(**{**tensors, **self._parts()}))
        return self._kept[0]

    def select(self, indices: Tensor) -> SparseAutoencoder:
        """A dictionary of these features alone, in memory; see `SparseAutoencoder.select`."""
        if not self.separable:
            return self.whole().select(indices)
        parts = self._parts()
        for name in ("encoder_bias", "threshold", "gate_bias"):
            parts[name] = None if parts[name] is None else parts[name][indices]
        return SparseAutoencoder(**{**self._only(indices.tolist()), **parts})

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> SparseAutoencoder:
        """The same dictionary on another device, still in its files.

        It is read into memory where `dtype` is not float32.
        """
        if dtype not in (None, torch.float32):
            return self.whole().to(device, dtype)
        return StoredAutoencoder(self.matrices, self._parts(), self.device if device is None else device)

    def _parts(self) -> dict[str, Any]:
        return {
            field.name: getattr(self, field.name)
            for field in fields(SparseAutoencoder)
            if field.name not in _MATRICES
        }

    def _only(self, features: Sequence[int]) -> dict[str, Tensor]:
        return {name: matrix.rows(features).to(self.device) for name, matrix in self.matrices.items()}


def readable_size(count: int) -> str:
    """A number of bytes with a unit, such as `4.3 GB`."""
    if count < 1e5:
        return f"{count / 1e3:.1f} kB"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _free(device: torch.device) -> int:
    """Free memory of the device, in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def _afford(size: int, device: torch.device) -> None:
    free = _free(device)
    if size > _SHARE * free:
        raise DictionaryError(
            f"all features of the dictionary are needed in memory, {readable_size(size)} in float32, and "
            f"{readable_size(free)} are free on {device.type}. Watching, clamping and scoring need only the named "
            "features; a TopK dictionary, inspecting, describing and searching need all of them"
        )
