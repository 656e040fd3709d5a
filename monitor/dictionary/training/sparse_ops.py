"""Sparse arithmetic over the active places of a batch: (token, feature) pairs, a few per thousand of all.

Knows how to find the places and how to multiply only there. Does not know objectives or gradients' meaning.
Finding them takes one dense product; everything after it costs in proportion to the number of places, which is
why training is several times faster than with dense activations on a CPU. Where places are many, or on an
accelerator, the same methods go through dense products.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

CHUNK = 512
"""Tokens scanned at a time, so that their pre-activations stay in the processor's cache."""

DENSE_ABOVE = 0.04
"""Share of active places above which dense products are faster on a CPU."""


@dataclass(frozen=True)
class Places:
    """`count` places of a `[tokens, features]` matrix, ordered by token. Values at them are `[count]` tensors."""

    rows: Tensor
    """`[count]` int32 or int64: token of each place, ascending."""
    columns: Tensor
    """`[count]`, likewise: feature of each place."""
    tokens: int
    features: int
    precision: torch.dtype = torch.float32
    """Of dense products; sparse ones are in the precision of what they multiply."""

    @property
    def count(self) -> int:
        """How many places."""
        return self.rows.shape[0]

    @property
    def dense(self) -> bool:
        """True where dense products pay."""
        many = self.count > DENSE_ABOVE * self.tokens * self.features
        return self.rows.device.type != "cpu" or many

    def where(self, keep: Tensor, values: Tensor) -> tuple[Places, Tensor]:
        """The places with `keep` `[count]` true, and their values."""
        index = keep.nonzero().squeeze(1)
        return replace(self, rows=self.rows[index], columns=self.columns[index]), values[index]

    def combine(self, values: Tensor, table: Tensor) -> Tensor:
        """`[tokens, d]`: for each token, Σ value · table[feature]; `table` is `[features, d]`."""
        if self.dense:
            return self._dense_product(self.matrix(values), table)
        return functional.embedding_bag(
            self.columns, table, self._row_offsets[:-1], mode="sum", per_sample_weights=values
        )

    def spread(self, values: Tensor, table: Tensor) -> Tensor:
        """`[features, d]`: for each feature, Σ value · table[token]; `table` is `[tokens, d]`."""
        if self.dense:
            return self._dense_product(self.matrix(values).T, table)
        order, offsets = self._by_feature
        return functional.embedding_bag(
            self.rows[order], table, offsets, mode="sum", per_sample_weights=values[order]
        )

    def products(self, left: Tensor, right: Tensor, *, exact: bool = False) -> Tensor:
        """`[count]`: left[token] · right[feature] at each place; `[tokens, d]` and `[features, d]`.

        `exact` computes in the precision of the tensors even where dense products are taken.
        """
        if self.dense:
            product = left @ right.T if exact else self._dense_product(left, right.T)
            return product[self.rows, self.columns]
        pattern = self._pattern(left.dtype)
        found: Tensor = torch.sparse.sampled_addmm(pattern, left, right.T, beta=0.0)
        return found.values()

    def per_feature(self, values: Tensor) -> Tensor:
        """`[features]`: sum of the values at each feature."""
        out = torch.zeros(self.features, dtype=values.dtype, device=values.device)
        return out.index_add_(0, self.columns, values)

    def matrix(self, values: Tensor) -> Tensor:
        """`[tokens, features]` with the values at their places and zero elsewhere."""
        out = torch.zeros(self.tokens, self.features, dtype=values.dtype, device=values.device)
        out[self.rows, self.columns] = values
        return out

    def _dense_product(self, left: Tensor, right: Tensor) -> Tensor:
        return (left.to(self.precision) @ right.to(self.precision)).to(left.dtype)

    @cached_property
    def _row_offsets(self) -> Tensor:
        return _offsets(self.rows, self.tokens)

    @cached_property
    def _by_feature(self) -> tuple[Tensor, Tensor]:
        order = torch.argsort(self.columns, stable=True)
        return order, _offsets(self.columns, self.features)[:-1]

    def _pattern(self, dtype: torch.dtype) -> Tensor:
        zeros = torch.zeros(self.count, dtype=dtype)
        with warnings.catch_warnings():  # torch calls its CSR layout beta
            warnings.simplefilter("ignore", UserWarning)
            return torch.sparse_csr_tensor(
                self._row_offsets,
                self.columns,
                zeros,
                (self.tokens, self.features),
                check_invariants=False,
            )


def _offsets(index: Tensor, size: int) -> Tensor:
    """`[size + 1]`: where each value of an index begins once it is sorted."""
    counts = torch.bincount(index, minlength=size)
    return functional.pad(counts.cumsum(0), (1, 0)).to(index.dtype)


def scan(x: Tensor, encoder: Tensor, bias: Tensor, cutoff: Tensor) -> Places:
    """The places whose pre-activation exceeds `cutoff`.

    Args:
        x: `[tokens, d]`, in the precision to scan with.
        encoder: `[features, d]`, likewise.
        bias: `[features]`, likewise.
        cutoff: `[features]`, not negative. In bfloat16 it is compared after rounding.
    """
    if x.dtype is torch.bfloat16 and x.device.type == "cpu":
        rows, columns = _scan_bfloat16(x, encoder, bias, cutoff)
    else:
        rows, columns = (torch.addmm(bias, x, encoder.T) > cutoff).nonzero(as_tuple=True)
    return Places(rows, columns, x.shape[0], encoder.shape[0], x.dtype)


def _scan_bfloat16(x: Tensor, encoder: Tensor, bias: Tensor, cutoff: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of the places, as int32. Positive bfloat16 numbers are ordered like the integers of their
    bits, and numpy compares and lists 16-bit integers an order of magnitude faster than torch does bfloat16.
    """
    features = encoder.shape[0]
    limit = cutoff.to(torch.bfloat16).view(torch.int16).numpy()
    buffer = torch.empty(CHUNK, features, dtype=torch.bfloat16)
    mask = np.empty((CHUNK, features), np.bool_)
    rows, columns = [], []
    for start in range(0, x.shape[0], CHUNK):
        part = x[start : start + CHUNK]
        pre = torch.addmm(bias, part, encoder.T, out=buffer[: part.shape[0]])
        above = np.greater(pre.view(torch.int16).numpy(), limit, out=mask[: part.shape[0]])
        row, column = np.divmod(np.flatnonzero(above).astype(np.int32), np.int32(features))
        rows.append(row + np.int32(start))
        columns.append(column)
    return torch.from_numpy(np.concatenate(rows)), torch.from_numpy(np.concatenate(columns))
