"""Description of a dictionary on a corpus: how strongly, how often and where every feature fires, in one pass."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from monitor.dictionary.cards.contexts import ActivationBatch, TopContexts
from monitor.dictionary.cards.firings import DrawnPlaces, FiringSample, PlaceSample
from monitor.dictionary.cards.statistics import FeatureStatistics
from monitor.dictionary.packed_text import PackedText, batches
from monitor.dictionary.residual_signals import sinks
from monitor.dictionary.sae import SparseAutoencoder
from monitor.errors import DictionaryError

_CHUNK_NUMBERS = 2**24


@dataclass(frozen=True)
class DescribeOptions:
    """How a corpus is read, and how many contexts are kept."""

    limit: float
    """The pair's norm limit: attention sinks are left out, as in training; see `sinks`."""
    keep: int = 8
    """Number of contexts per feature, each from another document."""
    before: int = 16
    """Tokens of a context before the strongest one."""
    after: int = 7
    """Tokens of a context after the strongest one."""
    batch_tokens: int = 8192
    """Tokens per forward pass."""
    firings: int = 24
    """Number of documents per feature from which one place each is drawn where the feature fires; for labels."""
    places: int = 6144
    """Number of places that are drawn from the whole corpus; for labels."""


@dataclass(frozen=True)
class CorpusDescription:
    """What one pass over a corpus found."""

    statistics: FeatureStatistics
    contexts: TopContexts
    firings: FiringSample
    places: DrawnPlaces
    outliers: int
    """Number of tokens left out because of their norm, or because their residual was not finite."""

    @property
    def l0(self) -> float:
        """Mean number of active features per token."""
        return float(self.statistics.density.sum())


class _RunningCounts:
    """Each feature's highest activation and number of active tokens so far."""

    def __init__(self, features: int, device: torch.device) -> None:
        self.maximum = torch.zeros(features, device=device)
        self.active = torch.zeros(features, dtype=torch.int64, device=device)
        self.tokens = 0
        self.outliers = 0

    def add(self, activations: Tensor, counted: Tensor) -> None:
        """Add activations `[n, features]`, which must be zero where `counted` `[n]` is False."""
        torch.maximum(self.maximum, activations.amax(0), out=self.maximum)
        self.active += activations.sign().sum(0).long()  # thrice as fast as summing booleans
        self.tokens += int(counted.sum())


@torch.no_grad()
def describe(
    rows: Iterable[PackedText],
    residuals: Callable[[Tensor], Tensor],
    autoencoder: SparseAutoencoder,
    options: DescribeOptions,
    *,
    corpus: str = "",
    dictionary_digest: str = "",
    progress: Callable[[int], None] | None = None,
) -> CorpusDescription:
    """Measure statistics and top contexts of every feature, and draw places for its label.

    Args:
        rows: packed documents, all of one length.
        residuals: maps token ids `[batch, length]` to residuals `[batch, length, d_model]`.
        autoencoder: the dictionary.
        options: how the corpus is read.
        corpus: description of the corpus in words, for the record.
        dictionary_digest: digest of the dictionary, for the record.
        progress: called after each batch with its number of tokens.

    Raises:
        DictionaryError: there was no token to count.
    """
    device = autoencoder.encoder.device
    counts = _RunningCounts(autoencoder.features, device)
    window: dict[str, Any] = {"before": options.before, "after": options.after, "device": device}
    contexts = TopContexts(autoencoder.features, keep=options.keep, **window)
    firings = FiringSample(autoencoder.features, keep=options.firings, **window)
    places = PlaceSample(keep=options.places, **window)
    first_row = 0
    for batch in _batches(rows, options.batch_tokens):
        x = residuals(batch.ids).to(device)
        ids, documents = batch.ids.to(device), batch.documents.to(device)
        counted = _counted(batch.positions, x, options, counts)
        for part in torch.split(
            torch.arange(len(ids), device=device), _rows_at_once(autoencoder, ids.shape[1])
        ):
            activations = autoencoder.encode(x[part]).float().flatten(0, 1)
            activations[~counted[part].flatten()] = 0.0
            counts.add(activations, counted[part])
            row = (first_row + part)[:, None].expand(-1, ids.shape[1]).flatten()
            seen = ActivationBatch(ids[part].flatten(), row, documents[part].flatten(), activations)
            contexts.update(seen)
            firings.update(seen)
            places.update(seen, counted[part].flatten())
        first_row += len(ids)
        if progress is not None:
            progress(ids.numel())
    statistics = replace(_statistics(counts, corpus, dictionary_digest), norm_limit=options.limit)
    return CorpusDescription(statistics, contexts, firings, places.places, counts.outliers)


def _batches(rows: Iterable[PackedText], batch_tokens: int) -> Iterator[PackedText]:
    """Batches of about `batch_tokens` tokens."""
    source = iter(rows)
    if (first := next(source, None)) is not None:
        yield from batches(itertools.chain([first], source), max(1, batch_tokens // first.tokens))


def _rows_at_once(autoencoder: SparseAutoencoder, length: int) -> int:
    return max(1, _CHUNK_NUMBERS // (autoencoder.features * length))


def _counted(positions: Tensor, x: Tensor, options: DescribeOptions, counts: _RunningCounts) -> Tensor:
    """`[batch, length]`: True where a token counts: it is no attention sink, and its residual is finite."""
    counted = ~sinks(x, positions, options.limit) & x.isfinite().all(-1)
    counts.outliers += int((~counted & (positions > 0).to(x.device)).sum())
    return counted


def _statistics(counts: _RunningCounts, corpus: str, dictionary_digest: str) -> FeatureStatistics:
    if not counts.tokens:
        raise DictionaryError("no token was read: give a corpus with more text, or a shorter row length")
    return FeatureStatistics(
        maximum=counts.maximum.cpu(),
        density=(counts.active.double() / counts.tokens).float().cpu(),
        tokens=counts.tokens,
        corpus=corpus,
        dictionary_digest=dictionary_digest,
    )
