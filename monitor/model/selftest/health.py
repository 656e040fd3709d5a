"""The self-test's numbers that are exported as metrics: how well the dictionary reconstructs the running model."""

from __future__ import annotations

import math
from dataclasses import dataclass

from monitor.model.runtime import LoadedPair
from monitor.model.selftest.result import SelfTest


@dataclass(frozen=True, slots=True)
class DictionaryBaseline:
    """Expected numbers, from the dictionary's statistics and from its makers."""

    l0: float | None
    """Mean number of active features per token over the dictionary's corpus: the sum of all densities."""
    explained_variance: float | None
    """Share of the variance that its makers say it explains; None where they say nothing."""
    density: tuple[float, ...]
    """Share of tokens of its corpus on which each feature was active."""


@dataclass(frozen=True, slots=True)
class DictionaryHealth:
    """Numbers over the tokens of the test texts, without BOS and norm outliers. NaN means "not measured"."""

    l0: float
    """Mean number of active features per token."""
    explained_variance: float
    """1 − Σ‖x − x̂‖² / Σ‖x − mean‖²."""
    norm_outliers: float
    """Share of tokens whose residual is more than ten times as long as the median."""
    expected: DictionaryBaseline | None = None
    """Expected values of these numbers."""
    checks: tuple[tuple[str, bool], ...] = ()
    """Every check of the self-test, and whether it passed."""
    skipped: bool = False
    """True where the operator skipped the self-test."""


def dictionary_health(pair: LoadedPair, test: SelfTest | None) -> DictionaryHealth:
    """The result of the self-test; `test` is None where it was skipped, and then nothing is measured."""
    baseline = dictionary_baseline(pair)
    if test is None:
        return DictionaryHealth(math.nan, math.nan, math.nan, baseline, skipped=True)
    found = test.measured
    return DictionaryHealth(found.l0, found.explained_variance, found.outliers, baseline, test.checks)


def dictionary_baseline(pair: LoadedPair) -> DictionaryBaseline:
    """What the dictionary's statistics and card say, without running anything."""
    statistics, card = pair.dictionary.statistics, pair.dictionary.card
    density = () if statistics is None else tuple(statistics.density.tolist())
    return DictionaryBaseline(sum(density) if density else card.l0, card.explained_variance, density)
