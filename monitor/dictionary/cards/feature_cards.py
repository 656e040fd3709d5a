"""Assembly of feature cards from a corpus description, the decoder and the model's unembedding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from monitor.dictionary.cards.card_file import Context, FeatureCard
from monitor.dictionary.cards.contexts import EMPTY
from monitor.dictionary.cards.description import CorpusDescription
from monitor.dictionary.cards.detokenizer import Detokenizer
from monitor.dictionary.cards.firing_file import DrawnPlace
from monitor.dictionary.cards.logit_lens import Unembedding, promoted
from monitor.dictionary.cards.neighbours import nearest
from monitor.dictionary.sae import SparseAutoencoder

TOKENS = 10
"""Number of promoted tokens per card, and of suppressed ones."""
NEIGHBOURS = 10
"""Number of nearest features per card."""
_ALIKE = 8
"""Two contexts are duplicates where this many tokens, up to the strongest one, are the same."""


def make_cards(
    description: CorpusDescription,
    autoencoder: SparseAutoencoder,
    unembedding: Unembedding | None,
    detokenizer: Detokenizer,
    *,
    start: Sequence[int] = (),
    contexts: int = 8,
) -> Iterator[FeatureCard]:
    """Make one card per feature, in order.

    Args:
        description: what one pass over a corpus found; its `keep` should exceed `contexts`, since duplicates are
            removed here.
        autoencoder: the dictionary that was described.
        unembedding: the model's last norm and head. With None, cards have no promoted or suppressed tokens.
        detokenizer: turns token ids into text.
        start: ids of the tokens that begin a text; they are left out where a context begins with them.
        contexts: most contexts per card.
    """
    decoder = autoencoder.decoder
    others, cosines = nearest(decoder, torch.arange(len(decoder), device=decoder.device), NEIGHBOURS)
    tokens = promoted(decoder, unembedding, TOKENS) if unembedding is not None else None
    for feature in range(len(decoder)):
        yield FeatureCard(
            feature=feature,
            contexts=tuple(_contexts(description, feature, detokenizer, start, contexts)),
            promoted=_spelt(tokens.raised[feature], tokens.raised_by[feature], detokenizer) if tokens else (),
            suppressed=_spelt(tokens.lowered[feature], tokens.lowered_by[feature], detokenizer)
            if tokens
            else (),
            neighbours=tuple(zip(others[feature].tolist(), _rounded(cosines[feature], 3), strict=True)),
        )


def _contexts(
    description: CorpusDescription, feature: int, detokenizer: Detokenizer, start: Sequence[int], most: int
) -> Iterator[Context]:
    top = description.contexts
    maximum = float(description.statistics.maximum[feature])
    for slot in _shown(description, feature, start, most):
        yield _context(
            float(top.peaks[feature, slot]),
            top.ids[feature, slot],
            top.levels[feature, slot],
            maximum,
            top.before,
            detokenizer,
            start,
        )


def _shown(description: CorpusDescription, feature: int, start: Sequence[int], most: int) -> list[int]:
    """Indices of the kept contexts that the card shows: no duplicates, and at most so many."""
    top = description.contexts
    seen: set[tuple[int, ...]] = set()
    found: list[int] = []
    for slot, (peak, ids) in enumerate(zip(top.peaks[feature], top.ids[feature], strict=True)):
        inside, at = _inside(ids, top.before, start)
        before = tuple(ids[inside].tolist()[max(0, at + 1 - _ALIKE) : at + 1])
        if peak > 0 and before not in seen and len(found) < most:
            seen.add(before)
            found.append(slot)
    return found


def make_firings(
    description: CorpusDescription,
    detokenizer: Detokenizer,
    *,
    start: Sequence[int] = (),
    contexts: int = 8,
) -> Iterator[tuple[Context, ...]]:
    """The places drawn where each feature fires, in the order of the features; see `FiringSample`.

    Documents that the feature's card shows, which has at most `contexts` of them, are left out: a label that was made
    from the card can be measured on the others. `at` is the drawn token, not the strongest.
    """
    drawn, documents = description.firings, description.contexts.documents
    for feature in range(len(documents)):
        own = drawn.of(feature)
        on_card = documents[feature, _shown(description, feature, start, contexts)]
        fresh = ~torch.isin(drawn.document[own], on_card)
        maximum = float(description.statistics.maximum[feature])
        yield tuple(
            _context(float(peak), ids, levels, maximum, drawn.before, detokenizer, start)
            for peak, ids, levels in zip(
                drawn.activation[own][fresh], drawn.ids[own][fresh], drawn.levels[own][fresh], strict=True
            )
        )


def make_places(
    description: CorpusDescription, detokenizer: Detokenizer, *, start: Sequence[int] = ()
) -> Iterator[DrawnPlace]:
    """The places that were drawn from the whole corpus, with the features that are active there."""
    drawn = description.places
    active: list[list[int]] = [[] for _ in range(len(drawn.ids))]
    for place, feature in zip(drawn.place.tolist(), drawn.feature.tolist(), strict=True):
        active[place].append(feature)
    for ids, features in zip(drawn.ids, active, strict=True):
        inside, at = _inside(ids, description.firings.before, start)
        yield DrawnPlace(at, tuple(detokenizer.pieces(ids[inside].tolist())), tuple(features))


def _context(
    peak: float,
    ids: Tensor,
    levels: Tensor,
    maximum: float,
    before: int,
    detokenizer: Detokenizer,
    start: Sequence[int],
) -> Context:
    inside, at = _inside(ids, before, start)
    return Context(
        round(peak, 4), at, tuple(detokenizer.pieces(ids[inside].tolist())), _percent(levels[inside], maximum)
    )


def _inside(ids: Tensor, before: int, start: Sequence[int]) -> tuple[Tensor, int]:
    """Which positions of a window are shown, and the index of its middle token among them."""
    inside = ids != EMPTY
    if start and ids[inside][: len(start)].tolist() == list(start):
        inside[inside.nonzero().squeeze(1)[: len(start)]] = False
    return inside, int(inside[:before].sum())


def _percent(levels: Tensor, maximum: float) -> tuple[int, ...]:
    percent = (100 * levels / maximum).round().clamp(min=1) * (levels > 0)
    return tuple(percent.int().tolist())


def _spelt(ids: Tensor, by: Tensor, detokenizer: Detokenizer) -> tuple[tuple[str, float], ...]:
    return tuple(zip(map(detokenizer.token, ids.tolist()), _rounded(by, 2), strict=True))


def _rounded(values: Tensor, digits: int) -> list[float]:
    return [round(value, digits) for value in values.tolist()]
