"""The sweep: small dictionaries at several layers, widths and sparsities, from one pass of the model over the text."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monitor.dictionary.training.progress import RunLines
from monitor.dictionary.training.settings import TrainSettings
from monitor.lab.training import TrainingSubject, TrainingText, open_subject, train_for_sweep
from monitor.recipes.smollm2.layers import LayerCache
from monitor.recipes.smollm2.plan import CONTEXT, SweepRun

BUFFER = 131_072
"""Activations that are shuffled together."""

_SHOWN = ("name", "layer", "features", "k", "fvu", "l0", "ce_recovered", "dead_share", "seconds")


@dataclass(frozen=True, slots=True)
class SweepText:
    """What a sweep reads."""

    model: str
    sources: tuple[str, ...]
    """`PATH=SHARE` of each text."""
    tokens: int
    held_out: int
    compile: bool = True
    """Whether the model's layers are compiled first."""


def sweep(
    text: SweepText, runs: Sequence[SweepRun], out: Path, tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Train and measure each dictionary; finished ones are read from their folders. Writes `sweep.json`.

    The model reads the text once, for the first run; residuals of all layers are kept in `out/residuals`, 12 GB for two
    million tokens at five layers.
    """
    layers = tuple(sorted({run.layer for run in runs}))
    found = []
    for run in runs:
        tell(f"{run.name}:")
        row = _trained(text, run, layers, out, tell)
        found.append({"name": run.name, "layer": run.layer, "k": run.k, **row})
        tell(str({key: found[-1][key] for key in _SHOWN}))
        (out / "sweep.json").write_text(json.dumps({"runs": found}, indent=1) + "\n", "utf-8")
    return found


def _trained(
    text: SweepText, run: SweepRun, layers: Sequence[int], out: Path, tell: Callable[[str], None]
) -> dict[str, Any]:
    subject = _subject(text, run.layer, layers, out / "residuals")
    asked = TrainSettings(features=run.features, tokens=text.tokens, k=run.k, buffer=BUFFER)
    settings = asked.resolved(subject.inputs.d_model)
    progress = RunLines(settings, subject.measured, tell)
    return train_for_sweep(out / run.name, settings, subject, progress)


def _subject(text: SweepText, layer: int, layers: Sequence[int], folder: Path) -> TrainingSubject:
    given = TrainingText(text.model, layer, text.sources, CONTEXT, text.held_out, "auto")
    subject = open_subject(given)
    cache = LayerCache(subject.loaded, layers, folder, compile=text.compile)
    return dataclasses.replace(subject, inputs=dataclasses.replace(subject.inputs, residuals=cache.of(layer)))
