"""Description of a dictionary on a corpus: how strongly, how often and where every feature fires, in one pass.

`pack_rows` cuts documents into rows of token ids of one length, and `describe` runs over them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from monitor.dictionary.cards.contexts import ActivationBatch, TopContexts
from monitor.dictionary.cards.statistics import FeatureStatistics
from monitor.dictionary.sae import SparseAutoencoder
from monitor.errors import DictionaryError

_CHUNK_NUMBERS = 2**24


@dataclass(frozen=True)
class PackedRow:
    """One sequence for a forward pass; it may hold several documents or part of one."""

    ids: Tensor
    """`[length]`: token ids."""
    documents: Tensor
    """`[length]`: index of each token's document, never decreasing from row to row."""


def pack_rows(
    texts: Iterable[str], tokenise: Callable[[str], list[int]], length: int, bos: int | None
) -> Iterator[PackedRow]:
    """Pack documents one after another into rows of `length` tokens.

    Each document and each row begin with `bos`, unless it is None. `tokenise` gives the ids of a text without special
    tokens. Tokens that do not fill the last row are dropped.
    """
    start = [] if bos is None else [bos]
    ids: list[int] = []
    documents: list[int] = []
    for number, text in enumerate(texts):
        new = [*start, *tokenise(text)]
        ids.extend(new)
        documents.extend([number] * len(new))
        while len(ids) >= length:
            yield PackedRow(torch.tensor(ids[:length]), torch.tensor(documents[:length]))
            ids, documents = ids[length:], documents[length:]
            if start and ids and ids[0] != bos:
                ids, documents = [*start, *ids], [documents[0], *documents]


@dataclass(frozen=True)
class DescribeOptions:
    """How a corpus is read, and how many contexts are kept."""

    bos: int | None = None
    """Id of the token that begins a text. Its positions are left out, and so is the first of every row."""
    keep: int = 8
    """Number of contexts per feature, each from another document."""
    before: int = 16
    """Tokens of a context before the strongest one."""
    after: int = 7
    """Tokens of a context after the strongest one."""
    batch_tokens: int = 8192
    """Tokens per forward pass."""
    outlier_norm: float = 10.0
    """Tokens whose residual norm exceeds the batch's median by this factor are left out: they are attention sinks
    other than BOS, on which dictionaries are not trained either."""


@dataclass(frozen=True)
class CorpusDescription:
    """What one pass over a corpus found."""

    statistics: FeatureStatistics
    contexts: TopContexts
    outliers: int
    """Number of tokens left out because of their norm."""

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
    rows: Iterable[PackedRow],
    residuals: Callable[[Tensor], Tensor],
    autoencoder: SparseAutoencoder,
    options: DescribeOptions,
    *,
    corpus: str = "",
    dictionary_digest: str = "",
    progress: Callable[[int], None] | None = None,
) -> CorpusDescription:
    """Measure statistics and top contexts of every feature.

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
            contexts.update(ActivationBatch(ids[part].flatten(), row, documents[part].flatten(), activations))
        first_row += len(ids)
        if progress is not None:
            progress(ids.numel())
    return CorpusDescription(_statistics(counts, corpus, dictionary_digest), contexts, counts.outliers)


def _batches(rows: Iterable[PackedRow], batch_tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Token ids and document indices, `[batch, length]` each, of about `batch_tokens` tokens."""
    source = iter(rows)
    first = next(source, None)
    if first is None:
        return
    source = itertools.chain([first], source)
    while batch := list(itertools.islice(source, max(1, batch_tokens // len(first.ids)))):
        yield torch.stack([row.ids for row in batch]), torch.stack([row.documents for row in batch])


def _rows_at_once(autoencoder: SparseAutoencoder, length: int) -> int:
    return max(1, _CHUNK_NUMBERS // (autoencoder.features * length))


def _counted(ids: Tensor, x: Tensor, options: DescribeOptions, counts: _RunningCounts) -> Tensor:
    """`[batch, length]`: True where a token counts, so neither first in its row, nor BOS, nor of outlying norm."""
    norm = x.norm(dim=-1)
    usual: Tensor = norm <= options.outlier_norm * norm[:, 1:].nanmedian()
    begins = torch.zeros_like(usual)
    begins[:, 0] = True
    if options.bos is not None:
        begins |= ids == options.bos
    counts.outliers += int((~usual & ~begins).sum())
    return usual & ~begins


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
