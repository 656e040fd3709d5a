"""Evidence of features: which of their places a label is made from, and on which it is tried.

Drawn places are of other documents than the card shows; a held-out place that repeats the text of another is left out.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from monitor.dictionary.cards.card_file import Context, FeatureCard
from monitor.dictionary.cards.firing_file import DrawnPlace
from monitor.dictionary.labeller.places import FROM_TEXT_START, TokenPlace, Window
from monitor.dictionary.labeller.traits import all_traits
from monitor.dictionary.labeller.trials import Origin, Trial

_ALIKE = 24
"""Two places are the same where so many characters up to them are."""
_SILENT = 2
"""Number of tokens near each place where the feature fires that are taken as places where it does not."""
_HELD_OUT = 3
_ENOUGH = 4
"""With fewer places than this held out, every third context of the card is held out with them."""


@dataclass(frozen=True)
class FeatureEvidence:
    """What is known of a feature: places to make a label from, and trials of it."""

    firing: tuple[TokenPlace, ...]
    silent: tuple[TokenPlace, ...]
    """Places near those where the feature does not fire."""
    trials: tuple[Trial, ...]


class DrawnTrials:
    """Places of the corpus, to take the silent side of trials from."""

    def __init__(self, places: Sequence[DrawnPlace]) -> None:
        self._places = places
        self._traits: dict[int, Trial | None] = {}
        self._active: dict[int, list[int]] = {}
        """For each feature the indices of the places where it is active."""
        for index, place in enumerate(places):
            for feature in place.active:
                self._active.setdefault(feature, []).append(index)

    def corpus(self, feature: int, count: int) -> list[Trial]:
        """Up to `count` places where the feature does not fire, the same ones at every call."""
        drawn = random.Random(feature).sample(range(len(self._places)), min(2 * count, len(self._places)))
        return self._trials(
            [at for at in drawn if feature not in self._places[at].active], Origin.CORPUS, count
        )

    def neighbours(self, feature: int, neighbours: Iterable[int], count: int) -> list[Trial]:
        """Up to `count` places where a neighbour fires and the feature does not; those of the nearest first."""
        near = [at for other in neighbours for at in self._active.get(other, ())]
        fitting = [at for at in dict.fromkeys(near) if feature not in self._places[at].active]
        return self._trials(fitting, Origin.NEIGHBOUR, count)

    def _trials(self, indices: Iterable[int], origin: Origin, count: int) -> list[Trial]:
        found: list[Trial] = []
        for index in indices:
            if len(found) == count:
                break
            if (trial := self._trial(index)) is not None:
                found.append(Trial(trial.traits, origin))
        return found

    def _trial(self, index: int) -> Trial | None:
        if index not in self._traits:
            drawn = self._places[index]
            place = window_of(drawn).place(drawn.at)
            self._traits[index] = None if place is None else Trial(all_traits(place), Origin.CORPUS)
        return self._traits[index]


def window_of(shown: Context | DrawnPlace) -> Window:
    """The window that a context shows."""
    return Window(shown.tokens, opens_text=shown.at < FROM_TEXT_START)


def gather(card: FeatureCard, firings: Sequence[Context], drawn: DrawnTrials) -> FeatureEvidence:
    """The evidence of one feature, from its card and from places where it fires; see `feature_cards.make_firings`.

    Of the places every second one, by strength, is held out; where these are few, every third context of the card too.
    """
    made_from, held = split(card.contexts, firings)
    made_from = _distinct(made_from, set())
    fresh = _distinct(held, {_before(context) for context in made_from})
    making = [(context, window_of(context)) for context in made_from]
    firing = [place for context, window in making if (place := window.place(context.at)) is not None]
    silent = [place for context, window in making for place in _silent(context, window)]
    neighbours = [other for other, _ in card.neighbours]
    return FeatureEvidence(
        tuple(firing),
        tuple(silent),
        tuple(_trials(card.feature, fresh, neighbours, drawn)),
    )


def split(contexts: Sequence[Context], firings: Sequence[Context]) -> tuple[list[Context], list[Context]]:
    """What a label is made from, and what is held out, of a card's contexts and of places where its feature fires."""
    ordered = sorted(firings, key=lambda context: -context.peak)
    made_from, held = ordered[1::2], ordered[::2]
    if len(held) >= _ENOUGH:
        return [*contexts, *made_from], held
    shown = [context for n, context in enumerate(contexts) if n % _HELD_OUT != _HELD_OUT - 1]
    return [*shown, *made_from], [*contexts[_HELD_OUT - 1 :: _HELD_OUT], *held]


def _trials(
    feature: int, held: Sequence[Context], neighbours: Sequence[int], drawn: DrawnTrials
) -> Iterator[Trial]:
    """As many places where it fires as of the corpus, half as many of neighbours, and half as many close by."""
    count = 0
    for number, context in enumerate(held):
        window = window_of(context)
        place = window.place(context.at)
        if place is None:
            continue
        count += 1
        yield Trial(all_traits(place), Origin.FIRING, context.levels[context.at] / 100)
        if number % 2:
            yield from (Trial(all_traits(other), Origin.CONTEXT) for other in _silent(context, window, 1))
    yield from drawn.corpus(feature, count)
    yield from drawn.neighbours(feature, neighbours, count // 2)


def _silent(context: Context, window: Window, count: int = _SILENT) -> list[TokenPlace]:
    """Tokens of a context at which the feature does not fire, the same ones at every call."""
    tokens = [at for at, level in enumerate(context.levels) if not level and 0 < at < len(context.levels) - 1]
    chosen = random.Random(len(window.text)).sample(tokens, min(count, len(tokens)))
    return [place for at in chosen if (place := window.place(at)) is not None]


def _distinct(contexts: Iterable[Context], seen: set[str]) -> list[Context]:
    """The contexts without those whose text up to the place was seen before; `seen` grows."""
    found = []
    for context in contexts:
        if (text := _before(context)) not in seen:
            seen.add(text)
            found.append(context)
    return found


def _before(context: Context) -> str:
    return "".join(context.tokens[: context.at + 1])[-_ALIKE:]
