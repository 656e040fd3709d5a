"""Trials of a label: places that it was not made from, some where the feature fires and some where it does not.

Detection scoring (Bills et al., 2023; Paulo et al., 2024) asks a language model, which sees only the explanation,
where the feature fires. Here the scorer is a program that reads the label's text: the same label and places give the
same result everywhere, and no model is needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass
from enum import StrEnum

from monitor.dictionary.labeller.meaning import Meaning
from monitor.dictionary.labeller.traits import Trait

_CERTAIN = 1.645
"""Standard errors by which a label has to be above chance."""


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


@dataclass(frozen=True)
class LabelScore:
    """How well a label predicts where its feature fires, on places that it was not made from."""

    auroc: float
    """Probability that a place where the feature fires fits the label better than one where it does not."""
    accuracy: float
    """Balanced accuracy: the mean of the shares of both kinds of places that the label is right about."""
    firing: int
    """Number of places where the feature fires."""
    silent: int

    @property
    def above_chance(self) -> bool:
        """True where the AUROC is above one half by more than its error (Hanley and McNeil, 1982)."""
        return self.auroc - _CERTAIN * self._error > 0.5

    @property
    def _error(self) -> float:
        a, n, m = self.auroc, self.firing, self.silent
        both = (n - 1) * (a / (2 - a) - a * a) + (m - 1) * (2 * a * a / (1 + a) - a * a)
        return math.sqrt(max(0.0, a * (1 - a) + both) / (n * m))


def score(meaning: Meaning, trials: Sequence[Trial]) -> LabelScore | None:
    """How well a label with this meaning predicts; None where the trials are all of one kind."""
    firing = [trial for trial in trials if trial.fires]
    silent = [trial for trial in trials if not trial.fires]
    if not firing or not silent:
        return None
    right = sum(meaning.claims(trial.traits) for trial in firing) / len(firing)
    wrong = sum(meaning.claims(trial.traits) for trial in silent) / len(silent)
    return LabelScore(
        _auroc([meaning.score(t.traits) for t in firing], [meaning.score(t.traits) for t in silent]),
        (right + 1 - wrong) / 2,
        len(firing),
        len(silent),
    )


def _auroc(firing: Sequence[float], silent: Sequence[float]) -> float:
    wins = sum((f > s) + 0.5 * (f == s) for f in firing for s in silent)
    return wins / (len(firing) * len(silent))
