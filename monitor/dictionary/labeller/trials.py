"""Trials of a label: places that it was not made from, some where the feature fires and some where it does not.

Detection scoring (Bills et al., 2023; Paulo et al., 2024) asks a language model, which sees only the explanation,
where the feature fires. Here the scorer is a program that reads the label's text: the same label and places give the
same result everywhere, and no model is needed.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from enum import StrEnum

from monitor.dictionary.cards.labels import LabelScore
from monitor.dictionary.labeller.label_text import Meaning
from monitor.dictionary.labeller.traits import Trait

_STRONG = 0.5
"""A place counts as strong from this share of the feature's maximum."""


class Origin(StrEnum):
    """Where the place of a trial comes from."""

    FIRING = "firing"
    CORPUS = "corpus"
    """A place of the corpus, drawn without regard to the feature."""
    NEIGHBOUR = "neighbour"
    """A place where one of the nearest features fires and this one does not."""
    CONTEXT = "context"
    """A token near one where the feature fires."""


@dataclass(frozen=True)
class Trial:
    """One place, and whether the feature fires there."""

    traits: Set[Trait]
    origin: Origin
    strength: float = 0.0
    """The activation in units of the feature's maximum; 0 where it does not fire."""

    @property
    def fires(self) -> bool:
        """True where the feature fires."""
        return self.origin is Origin.FIRING


def score(meaning: Meaning, trials: Sequence[Trial], common: float = 0.0) -> LabelScore | None:
    """How well a label with this meaning predicts; None where the trials are all of one kind.

    `common` is the share of all places of the corpus at which it says that the feature fires.
    """
    firing = [trial for trial in trials if trial.fires]
    silent = [trial for trial in trials if not trial.fires]
    if not firing or not silent:
        return None
    strong = [trial for trial in firing if trial.strength >= _STRONG]
    right = sum(meaning.claims(trial.traits) for trial in firing)
    wrong = sum(meaning.claims(trial.traits) for trial in silent) / len(silent)
    fits = [meaning.score(trial.traits) for trial in silent]
    return LabelScore(
        auroc=_auroc([meaning.score(trial.traits) for trial in firing], fits),
        strong=_auroc([meaning.score(trial.traits) for trial in strong], fits) if strong else None,
        accuracy=(right / len(firing) + 1 - wrong) / 2,
        firing=len(firing),
        strongly=len(strong),
        silent=len(silent),
        right=right,
        common=common,
    )


def _auroc(firing: Sequence[float], silent: Sequence[float]) -> float:
    wins = sum((f > s) + 0.5 * (f == s) for f in firing for s in silent)
    return wins / (len(firing) * len(silent))
