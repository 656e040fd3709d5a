"""How well the dictionary does on the running model, in the few numbers that operators watch.

Knows what the self-test measured and what the dictionary says about itself. Does not measure, and knows no metrics.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from monitor.model.runtime import LoadedPair
from monitor.model.selftest.result import SelfTest


@dataclass(frozen=True, slots=True)
class DictionaryBaseline:
    """What the dictionary's own statistics and its makers promise."""

    l0: float | None
    """Mean number of active features per token over its corpus: the sum of all densities."""
    explained_variance: float | None
    """As declared by its makers; None where they say nothing."""
    density: tuple[float, ...]
    """Share of tokens of its corpus on which each feature was active."""


@dataclass(frozen=True, slots=True)
class DictionaryHealth:
    """Measured over the tokens of the self-test's texts, BOS and norm outliers left out; NaN is "not measured"."""

    l0: float
    """Mean number of active features per token."""
    explained_variance: float
    """1 − Σ‖x − x̂‖² / Σ‖x − mean‖²."""
    norm_outliers: float
    """Share of tokens whose residual is an outlier."""
    expected: DictionaryBaseline | None = None
    """What these numbers are to be held against."""
    checks: tuple[tuple[str, bool], ...] = ()
    """Every check of the self-test with whether it passed."""
    skipped: bool = False
    """The operator did not want the self-test."""


def dictionary_health(pair: LoadedPair, test: SelfTest | None) -> DictionaryHealth:
    """What the self-test measured; without one (it was skipped) only what the dictionary says about itself."""
    baseline = dictionary_baseline(pair)
    if test is None:
        return DictionaryHealth(math.nan, math.nan, math.nan, baseline, skipped=True)
    found = test.measured
    return DictionaryHealth(found.l0, found.explained_variance, found.outliers, baseline, test.checks)


def dictionary_baseline(pair: LoadedPair) -> DictionaryBaseline:
    """What the dictionary says about itself; nothing is run."""
    statistics, card = pair.dictionary.statistics, pair.dictionary.card
    density = () if statistics is None else tuple(statistics.density.tolist())
    return DictionaryBaseline(sum(density) if density else card.l0, card.explained_variance, density)
