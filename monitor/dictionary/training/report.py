"""The report of a training run and its file, `training.json`: settings, results, speed and history."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from monitor.dictionary.formats import DictionaryCard
from monitor.dictionary.training.quality import DictionaryQuality
from monitor.dictionary.training.settings import TrainSettings
from monitor.dictionary.training.trainer import StepMetrics

FORMAT = "sae-monitor.training.v1"
POINTS = 200
"""Largest number of history points in the report."""


@dataclass(frozen=True)
class TrainingReport:
    """The report of one finished run."""

    settings: TrainSettings
    card: DictionaryCard
    evaluation: DictionaryQuality
    history: tuple[StepMetrics, ...]
    seconds: float
    """Duration of the training loop with the model's forward passes. In a resumed run, only since it was resumed."""
    harvest_seconds: float
    """The part of `seconds` that the model's forward passes took."""
    tokens: int
    """Number of tokens trained on in `seconds`, over all processes."""
    outliers: int
    """Number of positions that this process left out because of their norm."""
    texts_left_out: int = 0
    """Number of texts that this process did not read, because the chat template leaves them out of conversations."""

    @property
    def tokens_per_second(self) -> float:
        """Speed of the training loop with the model's forward passes."""
        return self.tokens / self.seconds

    def as_json(self) -> dict[str, Any]:
        """The contents of `training.json`."""
        measured = self.evaluation
        return {
            "format": FORMAT,
            "model": self.card.model_name,
            "layer": self.card.layer,
            "settings": dataclasses.asdict(self.settings),
            "results": results(measured),
            "speed": {
                "tokens": self.tokens,
                "seconds": round(self.seconds, 1),
                "of_these_in_the_model": round(self.harvest_seconds, 1),
                "tokens_per_second": round(self.tokens_per_second),
            },
            "outlier_positions_left_out": self.outliers,
            "texts_left_out": self.texts_left_out,
            "density_histogram_log10": histogram(measured.density.clamp_min(1e-7).log10(), -7, 0, 28),
            "nearest_decoder_cosine_histogram": histogram(measured.nearest, -0.2, 1, 24),
            "history": [dataclasses.asdict(metrics) for metrics in thinned(self.history)],
        }


def results(measured: DictionaryQuality) -> dict[str, float]:
    """The main measures by name."""
    return {
        "held_out_tokens": measured.tokens,
        "l0": measured.l0,
        "fvu": measured.fvu,
        "explained_variance": measured.explained_variance,
        "cosine": measured.cosine,
        "dead_share": measured.dead,
        "ce_tokens": measured.ce_tokens,
        "ce_clean": measured.ce_clean,
        "ce_spliced": measured.ce_spliced,
        "ce_zero": measured.ce_zero,
        "ce_recovered": measured.ce_recovered,
    }


def histogram(values: Tensor, low: float, high: float, bins: int) -> dict[str, list[float]]:
    """Edges and counts of `bins` equal bins from `low` to `high`. Values outside count in the first and last bin."""
    clipped = values.float().clamp(low, high)
    counts = torch.histc(clipped, bins, low, high)
    return {"edges": torch.linspace(low, high, bins + 1).tolist(), "counts": counts.int().tolist()}


def thinned(history: tuple[StepMetrics, ...]) -> list[StepMetrics]:
    """At most `POINTS` evenly spaced points of the history, with the first and the last."""
    if len(history) <= POINTS:
        return list(history)
    return [history[round(i * (len(history) - 1) / (POINTS - 1))] for i in range(POINTS)]


def write_report(folder: Path, report: TrainingReport) -> Path:
    """Write `training.json` to a dictionary's folder. Returns its path."""
    path = folder / "training.json"
    path.write_text(json.dumps(report.as_json(), indent=1) + "\n", "utf-8")
    return path
