"""One pass over a corpus: how strongly, how often and where every feature fires.

Knows how to count while residuals stream by. Does not know the model: it is given rows of token ids and a
function that turns them into residuals.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from monitor.dictionary.cards.contexts import Stretch, TopContexts
from monitor.dictionary.cards.packing import PackedRow
from monitor.dictionary.cards.statistics import FeatureStatistics
from monitor.dictionary.sae import SparseAutoencoder
from monitor.errors import DictionaryError

_CHUNK_NUMBERS = 2**24


@dataclass(frozen=True)
class Options:
    """How a corpus is read and what is kept of it."""

    bos: int | None = None
    """Id of the token that begins a text; positions that hold it are left out, as is the first of a row."""
    keep: int = 8
    """Contexts per feature, each of another document."""
    before: int = 16
    """Tokens of a context before the strongest one."""
    after: int = 7
    """Tokens of a context after the strongest one."""
    batch_tokens: int = 8192
    """Tokens per forward."""
    outlier_norm: float = 10.0
    """Tokens whose residual norm is more than this many times the batch's median are left out: attention sinks
    other than BOS, on which dictionaries are not trained either."""


@dataclass(frozen=True)
class Description:
    """What one pass found."""

    statistics: FeatureStatistics
    contexts: TopContexts
    outliers: int
    """Tokens left out because of their norm."""

    @property
    def l0(self) -> float:
        """Mean number of active features per token."""
        return float(self.statistics.density.sum())


class _Counts:
    """Running maxima and counts of activity."""

    def __init__(self, features: int, device: torch.device) -> None:
        self.maximum = torch.zeros(features, device=device)
        self.active = torch.zeros(features, dtype=torch.int64, device=device)
        self.tokens = 0
        self.outliers = 0

    def add(self, activations: Tensor, counted: Tensor) -> None:
        """Take in activations `[n, features]` that are zero where `counted` `[n]` is false."""
        torch.maximum(self.maximum, activations.amax(0), out=self.maximum)
        self.active += activations.sign().sum(0).long()  # thrice as fast as summing booleans
        self.tokens += int(counted.sum())


@torch.no_grad()
def describe(
    rows: Iterable[PackedRow],
    residuals: Callable[[Tensor], Tensor],
    autoencoder: SparseAutoencoder,
    options: Options,
    *,
    corpus: str = "",
    dictionary_digest: str = "",
    progress: Callable[[int], None] | None = None,
) -> Description:
    """Statistics and top contexts of every feature over rows of packed documents, all of one length.

    `residuals` maps ids `[batch, length]` to `[batch, length, d_model]`. `progress` is told the tokens of each
    batch. Raises DictionaryError where no token was left to count.
    """
    device = autoencoder.encoder.device
    counts = _Counts(autoencoder.features, device)
    contexts = TopContexts(
        autoencoder.features, keep=options.keep, before=options.before, after=options.after, device=device
    )
    first_row = 0
    for ids, documents in _batches(rows, options.batch_tokens):
        x = residuals(ids).to(device)
        ids, documents = ids.to(device), documents.to(device)
        counted = _counted(ids, x, options, counts)
        for part in torch.split(
            torch.arange(len(ids), device=device), _rows_at_once(autoencoder, ids.shape[1])
        ):
            activations = autoencoder.encode(x[part]).float().flatten(0, 1)
            activations[~counted[part].flatten()] = 0.0
            counts.add(activations, counted[part])
            row = (first_row + part)[:, None].expand(-1, ids.shape[1]).flatten()
            contexts.update(Stretch(ids[part].flatten(), row, documents[part].flatten(), activations))
        first_row += len(ids)
        if progress is not None:
            progress(ids.numel())
    return Description(_statistics(counts, corpus, dictionary_digest), contexts, counts.outliers)


def _batches(rows: Iterable[PackedRow], batch_tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Ids and documents `[batch, length]` of about `batch_tokens` tokens."""
    source = iter(rows)
    first = next(source, None)
    if first is None:
        return
    source = itertools.chain([first], source)
    while batch := list(itertools.islice(source, max(1, batch_tokens // len(first.ids)))):
        yield torch.stack([row.ids for row in batch]), torch.stack([row.documents for row in batch])


def _rows_at_once(autoencoder: SparseAutoencoder, length: int) -> int:
    return max(1, _CHUNK_NUMBERS // (autoencoder.features * length))


def _counted(ids: Tensor, x: Tensor, options: Options, counts: _Counts) -> Tensor:
    """Which positions `[batch, length]` count: not first in a row, not BOS, not of outlying norm."""
    norm = x.norm(dim=-1)
    usual: Tensor = norm <= options.outlier_norm * norm[:, 1:].nanmedian()
    begins = torch.zeros_like(usual)
    begins[:, 0] = True
    if options.bos is not None:
        begins |= ids == options.bos
    counts.outliers += int((~usual & ~begins).sum())
    return usual & ~begins


def _statistics(counts: _Counts, corpus: str, dictionary_digest: str) -> FeatureStatistics:
    if not counts.tokens:
        raise DictionaryError("no token was read: give a corpus with more text, or a shorter row length")
    return FeatureStatistics(
        maximum=counts.maximum.cpu(),
        density=(counts.active.double() / counts.tokens).float().cpu(),
        tokens=counts.tokens,
        corpus=corpus,
        dictionary_digest=dictionary_digest,
    )
