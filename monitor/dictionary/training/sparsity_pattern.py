"""`SparsityPattern`: which features are active at which token of a batch, and products at these entries only.

Only a few entries per thousand of a `[tokens, features]` matrix are active. Finding them takes one dense product, and
everything after that costs in proportion to their number. On a CPU this makes training several times faster than dense
activations do. Where many entries are active, and on an accelerator, the same methods use dense products.
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
"""Number of tokens searched at a time, so that their pre-activations stay in the processor's cache."""

DENSE_ABOVE = 0.04
"""Share of active entries above which a CPU uses dense products, because they are then faster."""


@dataclass(frozen=True)
class SparsityPattern:
    """Entries of a `[tokens, features]` matrix, ordered by token. Their values are given as tensors `[count]`."""

    rows: Tensor
    """`[count]` int32 or int64: token of each entry, ascending."""
    columns: Tensor
    """`[count]` of the same type: feature of each entry."""
    tokens: int
    """Number of tokens, active or not."""
    features: int
    """Number of features, active or not."""
    precision: torch.dtype = torch.float32
    """Type in which dense products are computed. Sparse products have the type of their arguments."""

    @property
    def count(self) -> int:
        """Number of entries."""
        return self.rows.shape[0]

    @property
    def dense(self) -> bool:
        """True where dense products are faster."""
        many = self.count > DENSE_ABOVE * self.tokens * self.features
        return self.rows.device.type != "cpu" or many

    def select(self, keep: Tensor, values: Tensor) -> tuple[SparsityPattern, Tensor]:
        """The entries where `keep` `[count]` is True, and their values."""
        index = keep.nonzero().squeeze(1)
        return replace(self, rows=self.rows[index], columns=self.columns[index]), values[index]

    def sum_over_features(self, values: Tensor, table: Tensor) -> Tensor:
        """For each token the sum of value · table[feature] over its entries; `table` is `[features, d]`.

        The result is `[tokens, d]`.
        """
        if self.dense:
            return self._dense_product(self.to_dense(values), table)
        return functional.embedding_bag(
            self.columns, table, self._row_offsets[:-1], mode="sum", per_sample_weights=values
        )

    def sum_over_tokens(self, values: Tensor, table: Tensor) -> Tensor:
        """For each feature the sum of value · table[token] over its entries; `table` is `[tokens, d]`.

        The result is `[features, d]`.
        """
        if self.dense:
            return self._dense_product(self.to_dense(values).T, table)
        order, offsets = self._by_feature
        return functional.embedding_bag(
            self.rows[order], table, offsets, mode="sum", per_sample_weights=values[order]
        )

    def dot_products(self, left: Tensor, right: Tensor, *, exact: bool = False) -> Tensor:
        """For each entry the product left[token] · right[feature]: `[count]`, of `[tokens, d]` and `[features, d]`.

        With `exact`, dense products too are computed in the type of the tensors.
        """
        if self.dense:
            product = left @ right.T if exact else self._dense_product(left, right.T)
            return product[self.rows, self.columns]
        zeros = self._csr_zeros(left.dtype)
        found: Tensor = torch.sparse.sampled_addmm(zeros, left, right.T, beta=0.0)
        return found.values()

    def per_feature(self, values: Tensor) -> Tensor:
        """The sum of each feature's values, `[features]`."""
        out = torch.zeros(self.features, dtype=values.dtype, device=values.device)
        return out.index_add_(0, self.columns, values)

    def to_dense(self, values: Tensor) -> Tensor:
        """A matrix `[tokens, features]` with these values at the entries and zero elsewhere."""
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

    def _csr_zeros(self, dtype: torch.dtype) -> Tensor:
        zeros = torch.zeros(self.count, dtype=dtype)
        with warnings.catch_warnings():  # torch warns that its CSR layout is in beta
            warnings.simplefilter("ignore", UserWarning)
            return torch.sparse_csr_tensor(
                self._row_offsets,
                self.columns,
                zeros,
                (self.tokens, self.features),
                check_invariants=False,
            )


def _offsets(index: Tensor, size: int) -> Tensor:
    """`[size + 1]`: where each value from 0 to `size` begins in the sorted `index`."""
    counts = torch.bincount(index, minlength=size)
    return functional.pad(counts.cumsum(0), (1, 0)).to(index.dtype)


def find_active(x: Tensor, encoder: Tensor, bias: Tensor, cutoff: Tensor) -> SparsityPattern:
    """The entries whose pre-activation exceeds `cutoff`, computed in the type of `x`.

    Args:
        x: input `[tokens, d]`.
        encoder: `[features, d]`, of the same type.
        bias: `[features]`, of the same type.
        cutoff: `[features]`, not negative. With bfloat16 on a CPU, it is rounded to that type.
    """
    if x.dtype is torch.bfloat16 and x.device.type == "cpu":
        rows, columns = _scan_bfloat16(x, encoder, bias, cutoff)
    else:
        rows, columns = (torch.addmm(bias, x, encoder.T) > cutoff).nonzero(as_tuple=True)
    return SparsityPattern(rows, columns, x.shape[0], encoder.shape[0], x.dtype)


def _scan_bfloat16(x: Tensor, encoder: Tensor, bias: Tensor, cutoff: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of the entries, as int32.

    Positive bfloat16 numbers are ordered like the integers of their bits, and numpy compares 16-bit integers ten times
    as fast as torch compares bfloat16 numbers.
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
