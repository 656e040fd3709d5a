"""Whether what scores can be trusted: the dictionary on the running model, and the self-test at load.

Knows numbers and what they were expected to be. Does not know how they are measured.
"""

from __future__ import annotations

import math

from monitor.telemetry.metrics.families import Families


class HealthMetrics:
    """Every method may be called from any thread. NaN stands for "not measured" or "not known"."""

    def __init__(self, families: Families) -> None:
        self._l0 = families.gauge("dictionary_l0", "Mean active features per token, as last measured.")
        self._l0_expected = families.gauge(
            "dictionary_l0_expected", "Mean active features per token over the dictionary's own corpus."
        )
        self._explained = families.gauge(
            "dictionary_explained_variance_ratio",
            "Share of the residual stream's variance that the dictionary explains, as last measured.",
        )
        self._explained_expected = families.gauge(
            "dictionary_explained_variance_expected_ratio",
            "Share of the variance that the dictionary's makers say it explains.",
        )
        self._outliers = families.gauge(
            "dictionary_norm_outliers_ratio",
            "Share of tokens whose residual is far longer than the median, as last measured.",
        )
        self._self_test = families.gauge(
            "self_test_passed", "1 where a check at load passed, 0 where it failed.", "check"
        )
        self._skipped = families.gauge(
            "self_test_skipped", "1 where the operator started without the self-test."
        )
        self.measured(math.nan, math.nan, math.nan)
        self.expected(None, None)

    def measured(self, l0: float, explained_variance: float, norm_outliers: float) -> None:
        """How well the dictionary does on what the model reads."""
        self._l0.set(l0)
        self._explained.set(explained_variance)
        self._outliers.set(norm_outliers)

    def expected(self, l0: float | None, explained_variance: float | None) -> None:
        """What the dictionary's own statistics and makers say; None where they say nothing."""
        self._l0_expected.set(math.nan if l0 is None else l0)
        self._explained_expected.set(math.nan if explained_variance is None else explained_variance)

    def skipped(self, skipped: bool) -> None:
        """Whether the self-test was left out."""
        self._skipped.set(float(skipped))

    def self_test(self, check: str, passed: bool) -> None:
        """The result of one check at load; `check` comes from a fixed set of short words."""
        self._self_test.labels(check).set(float(passed))
