"""Sweeps over sizes, lengths and learning rates, and the scaling laws that follow from them.

As in "Scaling Monosemanticity" (Templeton et al., 2024), these are the loss and the best learning rate, both against
compute.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monitor.dictionary.training.report import TrainingReport
from monitor.dictionary.training.settings import TrainSettings


@dataclass(frozen=True)
class SweepPlan:
    """The values to combine; every combination is one run."""

    features: tuple[int, ...]
    tokens: tuple[int, ...]
    learning_rates: tuple[float, ...]

    def runs(self, base: TrainSettings) -> list[TrainSettings]:
        """The settings of all runs, with those of `base` for everything else; the cheapest run is first."""
        found = [
            dataclasses.replace(
                base, features=features, tokens=tokens, learning_rate=rate, k=min(base.k, features)
            )
            for features in self.features
            for tokens in self.tokens
            for rate in self.learning_rates
        ]
        return sorted(found, key=lambda settings: settings.features * settings.tokens)


def flops(settings: TrainSettings, d_model: int) -> float:
    """Compute of a run in floating-point operations, counted as for dense training.

    Per token, each weight of encoder and decoder counts as 2 operations in the forward pass and 4 in the backward
    pass. The trainer here skips most of them, but published scaling curves are counted this way.
    """
    return 6.0 * settings.tokens * 2 * settings.features * d_model


def summary(report: TrainingReport, d_model: int) -> dict[str, Any]:
    """One row of `sweep.json`. Its `loss` is the mean of the objective over the last tenth of the history."""
    last = report.history[-max(1, len(report.history) // 10) :]
    measured = report.evaluation
    return {
        "features": report.settings.features,
        "tokens": report.settings.tokens,
        "learning_rate": report.settings.learning_rate,
        "flops": flops(report.settings, d_model),
        "loss": sum(metrics.loss for metrics in last) / len(last),
        "fvu": measured.fvu,
        "l0": measured.l0,
        "ce_recovered": measured.ce_recovered,
        "dead_share": measured.dead,
        "seconds": report.seconds,
    }


def power_law(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """(exponent, factor) of y = factor · x^exponent, by least squares on logarithms. Needs two different x or more."""
    xs, ys = [math.log(x) for x, _ in points], [math.log(y) for _, y in points]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
    return slope, math.exp(mean_y - slope * mean_x)


def frontier(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs for which no run of equal or less compute has a lower loss, in the order of compute."""
    best: list[dict[str, Any]] = []
    for run in sorted(runs, key=lambda run: (run["flops"], run["loss"])):
        if not best or run["loss"] < best[-1]["loss"]:
            best.append(run)
    return best


def conclusions(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The best learning rate for each size and length, and power laws where two or more points allow them."""
    best: dict[tuple[int, int], dict[str, Any]] = {}
    for run in runs:
        key = (run["features"], run["tokens"])
        if key not in best or run["loss"] < best[key]["loss"]:
            best[key] = run
    edge = frontier(runs)
    found: dict[str, Any] = {
        "best_learning_rates": [
            {name: run[name] for name in ("features", "tokens", "learning_rate", "loss")}
            for run in best.values()
        ]
    }
    if len({run["flops"] for run in edge}) > 1:
        exponent, factor = power_law([(run["flops"], run["loss"]) for run in edge])
        found["loss_against_compute"] = {"exponent": exponent, "factor": factor}
    rates = [(run["flops"], run["learning_rate"]) for run in edge]
    if len({compute for compute, _ in rates}) > 1:
        exponent, factor = power_law(rates)
        found["learning_rate_against_compute"] = {"exponent": exponent, "factor": factor}
    return found


def write_sweep(folder: Path, runs: Sequence[dict[str, Any]]) -> Path:
    """Write `sweep.json` to `folder`. Returns its path."""
    path = folder / "sweep.json"
    path.write_text(json.dumps({"runs": list(runs), **conclusions(runs)}, indent=1) + "\n", "utf-8")
    return path
