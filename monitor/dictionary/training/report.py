"""What a run says about itself: `training.json`, and a picture of it.

Knows which numbers are told. Does not know how they were measured.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from monitor.dictionary.formats import DictionaryCard
from monitor.dictionary.training.evaluate import Evaluation
from monitor.dictionary.training.settings import TrainSettings
from monitor.dictionary.training.trainer import Metrics

FORMAT = "sae-monitor.training.v1"
POINTS = 200
"""Most points of the history that are kept."""


@dataclass(frozen=True)
class Report:
    """One finished run."""

    settings: TrainSettings
    card: DictionaryCard
    evaluation: Evaluation
    history: tuple[Metrics, ...]
    seconds: float
    """Of the whole loop, model included; of the last stretch where the run was resumed."""
    harvest_seconds: float
    """Of these, in the model's forward passes."""
    tokens: int
    """Trained on in these seconds, over all processes."""
    outliers: int
    """Positions left out for their norm, of this process."""

    @property
    def tokens_per_second(self) -> float:
        """Of the whole loop."""
        return self.tokens / self.seconds

    def as_json(self) -> dict[str, Any]:
        """What `training.json` holds."""
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
            "density_histogram_log10": histogram(measured.density.clamp_min(1e-7).log10(), -7, 0, 28),
            "nearest_decoder_cosine_histogram": histogram(measured.nearest, -0.2, 1, 24),
            "history": [dataclasses.asdict(metrics) for metrics in thinned(self.history)],
        }


def results(measured: Evaluation) -> dict[str, float]:
    """The headline numbers by name."""
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
    """Edges (one more than counts) and counts; what lies outside counts at the ends."""
    clipped = values.float().clamp(low, high)
    counts = torch.histc(clipped, bins, low, high)
    return {"edges": torch.linspace(low, high, bins + 1).tolist(), "counts": counts.int().tolist()}


def thinned(history: tuple[Metrics, ...]) -> list[Metrics]:
    """At most `POINTS` of the history, first and last among them."""
    if len(history) <= POINTS:
        return list(history)
    return [history[round(i * (len(history) - 1) / (POINTS - 1))] for i in range(POINTS)]


def write_report(folder: Path, report: Report) -> Path:
    """Write `training.json`; returns its path."""
    path = folder / "training.json"
    path.write_text(json.dumps(report.as_json(), indent=1) + "\n", "utf-8")
    return path
