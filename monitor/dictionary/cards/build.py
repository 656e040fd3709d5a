"""From a description of a corpus to feature cards.

Knows which numbers of a pass, a decoder and an unembedding make a card. Does not know the file (`cards`) or the
counting (`describe`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from monitor.dictionary.cards.card_file import Context, FeatureCard
from monitor.dictionary.cards.contexts import EMPTY
from monitor.dictionary.cards.describe import Description
from monitor.dictionary.cards.logit_lens import Unembedding, promoted
from monitor.dictionary.cards.neighbours import nearest
from monitor.dictionary.cards.spelling import Speller
from monitor.dictionary.sae import SparseAutoencoder

TOKENS = 10
"""Promoted and suppressed tokens per card."""
NEIGHBOURS = 10
_ALIKE = 8
"""Two contexts are alike where so many tokens up to the strongest one are the same."""


def make_cards(
    description: Description,
    autoencoder: SparseAutoencoder,
    unembedding: Unembedding | None,
    speller: Speller,
    *,
    bos: int | None = None,
    contexts: int = 8,
) -> Iterator[FeatureCard]:
    """One card per feature, in order; without an unembedding no tokens are promoted or suppressed.

    At most `contexts` contexts each, no two alike: documents that repeat each other give one. Describe with a
    larger `keep`, so that enough are left. `bos` is left out of them: it is no text.
    """
    decoder = autoencoder.decoder
    others, cosines = nearest(decoder, torch.arange(len(decoder), device=decoder.device), NEIGHBOURS)
    tokens = promoted(decoder, unembedding, TOKENS) if unembedding is not None else None
    for feature in range(len(decoder)):
        yield FeatureCard(
            feature=feature,
            contexts=tuple(itertools.islice(_contexts(description, feature, speller, bos), contexts)),
            promoted=_spelt(tokens.raised[feature], tokens.raised_by[feature], speller) if tokens else (),
            suppressed=_spelt(tokens.lowered[feature], tokens.lowered_by[feature], speller) if tokens else (),
            neighbours=tuple(zip(others[feature].tolist(), _rounded(cosines[feature], 3), strict=True)),
        )


def _contexts(description: Description, feature: int, speller: Speller, bos: int | None) -> Iterator[Context]:
    top = description.contexts
    maximum = float(description.statistics.maximum[feature])
    seen: set[tuple[int, ...]] = set()
    for peak, ids, levels in zip(top.peaks[feature], top.ids[feature], top.levels[feature], strict=True):
        inside = (ids != EMPTY) & (ids != (EMPTY if bos is None else bos))
        at = int(inside[: top.before].sum())
        window = ids[inside].tolist()
        before = tuple(window[max(0, at + 1 - _ALIKE) : at + 1])
        if peak <= 0 or before in seen:
            continue
        seen.add(before)
        yield Context(
            round(float(peak), 4), at, tuple(speller.pieces(window)), _percent(levels[inside], maximum)
        )


def _percent(levels: Tensor, maximum: float) -> tuple[int, ...]:
    percent = (100 * levels / maximum).round().clamp(min=1) * (levels > 0)
    return tuple(percent.int().tolist())


def _spelt(ids: Tensor, by: Tensor, speller: Speller) -> tuple[tuple[str, float], ...]:
    return tuple(zip(map(speller.one, ids.tolist()), _rounded(by, 2), strict=True))


def _rounded(values: Tensor, digits: int) -> list[float]:
    return [round(value, digits) for value in values.tolist()]
