"""Readings, residuals and signals of many texts at once, and the protocol of the reader that provides them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from monitor.policy.files.occurrences import Document

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class TokenReadings:
    """Readings of every token of every text, sparse. Attention sinks are left out, as rules ignore them."""

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
        """The readings of the texts with these indices, in that order."""
        rows = [np.arange(self.starts[i], self.starts[i + 1]) for i in texts]
        lengths = [len(r) for r in rows]
        picked = self.matrix[np.concatenate(rows)] if rows else self.matrix[:0]
        return TokenReadings(picked, np.concatenate([[0], np.cumsum(lengths)]).astype(np.intp))

    def columns(self, features: Indices) -> list[Floats]:
        """Dense readings `[tokens, len(features)]` of the given features, text by text."""
        dense = self.matrix[:, features].toarray().astype(np.float64)
        return np.split(dense, self.starts[1:-1])

    def means(self, leads: Indices | None = None) -> sparse.csr_matrix:
        """Mean reading `[texts, features]` of each text; zero for a text without tokens.

        `leads` `[texts]`: how many tokens are left out at the beginning of each.
        """
        lengths = np.diff(self.starts)
        lead = np.zeros(len(self), np.intp) if leads is None else np.minimum(leads, lengths)
        counted = np.arange(int(lengths.sum())) >= np.repeat(
            self.starts[:-1] - self.starts[0] + lead, lengths
        )
        share = np.repeat(1.0 / np.maximum(lengths - lead, 1), lengths) * counted
        rows = np.repeat(np.arange(len(self)), lengths)
        average = sparse.csr_matrix((share, (rows, np.arange(len(rows)))), (len(self), self.matrix.shape[0]))
        return average @ self.matrix

    def density(self) -> Floats:
        """`[features]`: share of tokens on which each feature is active."""
        active = np.asarray((self.matrix > 0).sum(axis=0)).ravel()
        return np.asarray(active / max(self.matrix.shape[0], 1), np.float64)


def join(parts: Sequence[TokenReadings]) -> TokenReadings:
    """All texts of all parts, in order."""
    lengths = np.concatenate([np.diff(part.starts) for part in parts])
    matrix = sparse.vstack([part.matrix for part in parts], format="csr")
    return TokenReadings(matrix, np.concatenate([[0], np.cumsum(lengths)]).astype(np.intp))


@dataclass(frozen=True)
class TextReadings:
    """Readings, residuals and anomaly signals of every token of some texts."""

    tokens: TokenReadings
    residuals: NDArray[np.float32]
    """`[tokens, d_model]`: the residual stream at the tapped layer, in the same rows as `tokens`."""
    signals: dict[str, Floats] = field(default_factory=dict)
    """For each anomaly signal by name, its value at every token `[tokens]`."""
    positions: Indices | None = None
    """`[tokens]`: position of each in its text, where that is known; attention sinks are left out between them."""
    leads: Indices | None = None
    """`[texts]`: how many tokens a chat template wrote before the text; None where it wrote none. Rules read them, and
    means leave them out, because they are the same in all texts."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def lengths(self) -> Indices:
        """`[texts]`: number of tokens of each text, attention sinks left out."""
        return np.diff(self.tokens.starts)

    def residual(self, text: int) -> NDArray[np.float32]:
        """Residuals `[tokens, d_model]` of one text."""
        return self.residuals[self.tokens.starts[text] : self.tokens.starts[text + 1]]

    def signal(self, name: str, which: Indices) -> list[Floats]:
        """An anomaly signal `[tokens]` of each of the texts `which`."""
        starts = self.tokens.starts
        return [self.signals[name][starts[i] : starts[i + 1]] for i in which]

    def take(self, which: Indices) -> TextReadings:
        """The readings of the texts `which`, in that order."""
        rows = np.concatenate([np.arange(self.tokens.starts[i], self.tokens.starts[i + 1]) for i in which])
        signals = {name: values[rows] for name, values in self.signals.items()}
        places = None if self.positions is None else self.positions[rows]
        leads = None if self.leads is None else self.leads[which]
        return TextReadings(self.tokens.take(which), self.residuals[rows], signals, places, leads)

    @staticmethod
    def empty() -> TextReadings:
        """Readings of no text."""
        return TextReadings(
            TokenReadings(sparse.csr_matrix((0, 0)), np.zeros(1, np.intp)), np.zeros((0, 0), np.float32)
        )

    @cached_property
    def means(self) -> Floats:
        """`[texts, d_model]`: mean residual of each text; zero for a text without tokens."""
        out = np.zeros((len(self), self.residuals.shape[1]))
        for i in range(len(self)):
            own = self.residual(i)[0 if self.leads is None else int(self.leads[i]) :]
            if len(own):
                out[i] = own.mean(axis=0, dtype=np.float64)
        return out

    @cached_property
    def feature_means(self) -> sparse.csr_matrix:
        """Mean reading `[texts, features]` of each text; zero for a text without tokens."""
        return self.tokens.means(self.leads).tocsr()


def join_texts(parts: Sequence[TextReadings]) -> TextReadings:
    """All texts of all parts, in order."""
    places = [part.positions for part in parts]
    leads = [np.zeros(len(part), np.intp) if part.leads is None else part.leads for part in parts]
    return TextReadings(
        join([part.tokens for part in parts]),
        np.concatenate([part.residuals for part in parts]),
        {name: np.concatenate([part.signals[name] for part in parts]) for name in parts[0].signals},
        None if any(p is None for p in places) else np.concatenate([p for p in places if p is not None]),
        np.concatenate(leads),
    )


class FitReader(Protocol):
    """What the fit needs of a model and its dictionary."""

    @property
    def maxima(self) -> Floats:
        """`[features]`: recorded maxima; 0 for a feature that was never seen active."""

    @property
    def takes_turns(self) -> bool:
        """Whether the model has a chat template, so that texts are read inside of conversations."""

    def read(self, texts: Sequence[Document]) -> TextReadings:
        """Readings of texts, of conversations those of what is judged."""

    def reach(self, direction: Floats) -> Floats:
        """`[features]`: what a reading of 1 of each feature adds to the product of the residual and `direction`."""

    def attribution(self, texts: Sequence[Document]) -> Floats:
        """`[features]`: effect of each feature's activity a_i on the log-probability of the texts, in nats per token.

        It is the mean over texts and tokens of a_i · (∂ log p(text)/∂x · W_dec_i).
        """

    def label(self, feature: int) -> str:
        """The dictionary's label of a feature; empty where it has none."""
