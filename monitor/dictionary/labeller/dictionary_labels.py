"""Labels of a whole dictionary, each with its score, from its cards and from the places that `describe` drew."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from monitor.dictionary.cards.card_file import Context, FeatureCard
from monitor.dictionary.cards.firing_file import DrawnPlace, Firings
from monitor.dictionary.cards.labels import Labels, LabelScore
from monitor.dictionary.labeller.background import Background
from monitor.dictionary.labeller.evidence import DrawnTrials, FeatureEvidence, gather, window_of
from monitor.dictionary.labeller.label_text import UNCLEAR, UNSEEN, Meaning, read
from monitor.dictionary.labeller.labeller import Labeller
from monitor.dictionary.labeller.trials import score

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


@dataclass(frozen=True)
class LabelSummary:
    """How well the labels of a dictionary predict, as means over the features that could be tried."""

    tried: int
    """Number of features whose label was tried."""
    auroc: float
    strong: float
    """The mean AUROC on places with at least half of a feature's maximum."""
    accuracy: float
    shuffled: float
    """The mean AUROC of other features' labels on the same places: what chance gives."""
    unclear: int
    """Number of features that no label predicts; those without contexts are not among them."""


def summary(labels: Sequence[FeatureLabel]) -> LabelSummary:
    """The means of the labels' scores, those of unclear labels among them; no label at all is as good as chance."""
    scores = [label.score for label in labels if label.score is not None]
    return LabelSummary(
        len(scores),
        _mean([score.auroc for score in scores]),
        _mean([score.strong for score in scores if score.strong is not None]),
        _mean([score.accuracy for score in scores]),
        _mean([label.shuffled.auroc for label in labels if label.shuffled is not None]),
        sum(label.text == UNCLEAR for label in labels),
    )


def in_place_of(labels: Labels, made: Sequence[FeatureLabel]) -> Labels:
    """Labels with these automatic ones in place of the earlier."""
    return labels.with_auto(
        {label.feature: label.text for label in made},
        {label.feature: label.score for label in made if label.score is not None},
        {label.feature: label.guess for label in made if label.text == UNCLEAR and label.guess},
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.5


def label_dictionary(cards: Sequence[FeatureCard], firings: Firings | None = None) -> Iterator[FeatureLabel]:
    """A label for every card of a dictionary, in order.

    `firings` are the places that `describe` drew; without them labels are made from the contexts on the cards alone.
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


def _label(labeller: Labeller, card: FeatureCard, evidence: FeatureEvidence, other: str) -> FeatureLabel:
    if not card.contexts:
        return FeatureLabel(card.feature, UNSEEN)
    found = labeller.label(evidence.firing, evidence.silent, [token for token, _ in card.promoted])
    meaning = Meaning(()) if found is None else read(found)
    measured = score(meaning, evidence.trials, labeller.common(meaning))
    if found is None:
        return FeatureLabel(card.feature, UNCLEAR, score=measured)
    clear = measured is None or measured.above_chance
    return FeatureLabel(
        card.feature,
        found if clear else UNCLEAR,
        found,
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
