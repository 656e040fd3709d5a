"""Readings of many texts at once, sparse, and who provides them.

Knows the arrays. Does not know the model that made them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class TokenReadings:
    """Readings of every token of every text but each text's first position, which rules ignore."""

    matrix: sparse.csr_matrix
    """`[tokens, features]`, in units of each feature's recorded maximum."""
    starts: Indices
    """`[texts + 1]`: text `i` holds the rows `starts[i]` to `starts[i + 1]`."""

    def __len__(self) -> int:
        return len(self.starts) - 1

    def of(self, text: int) -> sparse.csr_matrix:
        """Readings `[tokens, features]` of one text."""
        return self.matrix[self.starts[text] : self.starts[text + 1]]

    def take(self, texts: Sequence[int] | Indices) -> TokenReadings:
        """The readings of some texts, in that order."""
        rows = [np.arange(self.starts[i], self.starts[i + 1]) for i in texts]
        lengths = [len(r) for r in rows]
        picked = self.matrix[np.concatenate(rows)] if rows else self.matrix[:0]
        return TokenReadings(picked, np.concatenate([[0], np.cumsum(lengths)]).astype(np.intp))

    def columns(self, features: Indices) -> list[Floats]:
        """Dense readings `[tokens, len(features)]` of some features, text by text."""
        dense = self.matrix[:, features].toarray().astype(np.float64)
        return np.split(dense, self.starts[1:-1])

    def means(self) -> sparse.csr_matrix:
        """Mean reading `[texts, features]` of each text; zero for a text without tokens."""
        lengths = np.diff(self.starts)
        share = np.repeat(1.0 / np.maximum(lengths, 1), lengths)
        rows = np.repeat(np.arange(len(self)), lengths)
        average = sparse.csr_matrix((share, (rows, np.arange(len(rows)))), (len(self), self.matrix.shape[0]))
        return average @ self.matrix

    def density(self) -> Floats:
        """Share of tokens on which each feature is active, `[features]`."""
        active = np.asarray((self.matrix > 0).sum(axis=0)).ravel()
        return np.asarray(active / max(self.matrix.shape[0], 1), np.float64)


def join(parts: Sequence[TokenReadings]) -> TokenReadings:
    """All texts of all parts, in order."""
    lengths = np.concatenate([np.diff(part.starts) for part in parts])
    matrix = sparse.vstack([part.matrix for part in parts], format="csr")
    return TokenReadings(matrix, np.concatenate([[0], np.cumsum(lengths)]).astype(np.intp))


@dataclass(frozen=True)
class TextReadings:
    """What a model makes of texts."""

    tokens: TokenReadings
    means: Floats
    """`[texts, d_model]`: mean residual, first positions left out; what the linear probe sees."""


class Reader(Protocol):
    """A model and its dictionary, as the fit needs them."""

    @property
    def maxima(self) -> Floats:
        """`[features]` recorded maxima; 0 where a feature was never seen active."""

    def read(self, texts: Sequence[str]) -> TextReadings:
        """Readings of texts."""

    def attribution(self, texts: Sequence[str]) -> Floats:
        """`[features]`: mean over texts and tokens of a_i · (∂ log p(text)/∂x · W_dec_i), nats per token."""

    def label(self, feature: int) -> str:
        """What the dictionary calls a feature; empty where nobody named it."""
