"""Runs over sizes, lengths and learning rates, for scaling curves.

Knows which runs a sweep has, what each costs and how loss scales. Does not know how a run is done.
"Scaling Monosemanticity" draws the same two curves: loss against compute, and the best learning rate.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monitor.dictionary.training.report import Report
from monitor.dictionary.training.settings import TrainSettings


@dataclass(frozen=True)
class Plan:
    """Every combination is one run."""

    features: tuple[int, ...]
    tokens: tuple[int, ...]
    learning_rates: tuple[float, ...]

    def runs(self, base: TrainSettings) -> list[TrainSettings]:
        """Settings of all runs, cheapest first."""
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
    """Compute of a run done densely: encoder and decoder, 2 forward and 4 backward per weight and token.

    As others count it, so that curves can be compared; the trainer here skips most of it.
    """
    return 6.0 * settings.tokens * 2 * settings.features * d_model


def summary(report: Report, d_model: int) -> dict[str, Any]:
    """One row of `sweep.json`; `loss` is the objective's at the end of training (mean of its last tenth)."""
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
    """(exponent, factor) of y = factor · x^exponent, by least squares on logarithms; ≥ 2 different x."""
    xs, ys = [math.log(x) for x, _ in points], [math.log(y) for _, y in points]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
    return slope, math.exp(mean_y - slope * mean_x)


def frontier(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Runs that no cheaper or equally cheap run beats, by compute."""
    best: list[dict[str, Any]] = []
    for run in sorted(runs, key=lambda run: (run["flops"], run["loss"])):
        if not best or run["loss"] < best[-1]["loss"]:
            best.append(run)
    return best


def conclusions(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Best learning rate of each size and length, and the power laws where there are two points for them."""
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
    """Write `sweep.json`; returns its path."""
    path = folder / "sweep.json"
    path.write_text(json.dumps({"runs": list(runs), **conclusions(runs)}, indent=1) + "\n", "utf-8")
    return path
