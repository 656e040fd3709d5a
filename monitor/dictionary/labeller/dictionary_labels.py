"""Labels of a whole dictionary, each with its score, from its cards and from the places that `describe` drew."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from monitor.dictionary.cards.card_file import Context, FeatureCard
from monitor.dictionary.cards.firing_file import DrawnPlace, Firings
from monitor.dictionary.labeller.background import Background
from monitor.dictionary.labeller.evidence import DrawnTrials, Evidence, gather, window_of
from monitor.dictionary.labeller.labeller import Labeller
from monitor.dictionary.labeller.meaning import UNCLEAR, UNSEEN, read
from monitor.dictionary.labeller.trials import LabelScore, score

_FOR_TRIALS = 3
"""One of so many drawn places is kept for trials; the others are the background."""
_FROM_CARDS = 6000
"""Most contexts of cards that stand in for drawn places where there are none."""


@dataclass(frozen=True)
class FeatureLabel:
    """A feature's automatic label."""

    feature: int
    text: str
    """`unclear` where no label predicts where the feature fires."""
    guess: str = ""
    """The label that was tried; empty where there was none to try."""
    score: LabelScore | None = None
    """None where there was no place to try it on."""
    shuffled: LabelScore | None = None
    """The score on this feature's places of another feature's label."""


def label_dictionary(
    cards: Sequence[FeatureCard], firings: Firings | None = None, progress: Callable[[int], None] | None = None
) -> Iterator[FeatureLabel]:
    """A label for every card, in order. Without `firings`, from the contexts on the cards alone.

    Args:
        cards: all cards of a dictionary.
        firings: the places that `describe` drew.
        progress: called after each feature with 1.
    """
    places = firings.places if firings is not None else _places_of(cards)
    labeller = Labeller(Background(map(window_of, (p for n, p in enumerate(places) if n % _FOR_TRIALS))))
    drawn = DrawnTrials(places[::_FOR_TRIALS])
    other = ""
    contexts: Iterable[tuple[Context, ...]] = itertools.repeat(()) if firings is None else firings.contexts
    for card, own in zip(cards, contexts, strict=False):
        made = _label(labeller, card, gather(card, own, drawn), other)
        other = made.guess or other
        yield made
        if progress is not None:
            progress(1)


def _label(labeller: Labeller, card: FeatureCard, evidence: Evidence, other: str) -> FeatureLabel:
    if not card.contexts:
        return FeatureLabel(card.feature, UNSEEN)
    found = labeller.label(evidence.firing, evidence.silent, [token for token, _ in card.promoted])
    if found is None:
        return FeatureLabel(card.feature, UNCLEAR)
    measured = score(read(found.text), evidence.trials)
    clear = measured is None or measured.above_chance
    return FeatureLabel(
        card.feature,
        found.text if clear else UNCLEAR,
        found.text,
        measured,
        score(read(other), evidence.trials) if other else None,
    )


def _places_of(cards: Sequence[FeatureCard]) -> tuple[DrawnPlace, ...]:
    """The contexts of cards as places of the corpus: what else is active there is not known."""
    step = max(1, sum(len(card.contexts) for card in cards) // _FROM_CARDS)
    every = ((card.feature, context) for card in cards for context in card.contexts)
    return tuple(
        DrawnPlace(context.at, context.tokens, (feature,))
        for feature, context in itertools.islice(every, 0, None, step)
    )
