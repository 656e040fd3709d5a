"""A whole training run: start or resume it, train, measure the dictionary, save it and report.

The model and its text come as functions (`TrainingInputs`).
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from monitor.dictionary.formats import DictionaryCard, save_saelens
from monitor.dictionary.packed_text import PackedText
from monitor.dictionary.residual_signals import norm_limit
from monitor.dictionary.training import checkpoint, processes
from monitor.dictionary.training.quality import Logits, measure_quality
from monitor.dictionary.training.report import TrainingReport, write_report
from monitor.dictionary.training.settings import TrainSettings
from monitor.dictionary.training.stream import ActivationStream, Residuals
from monitor.dictionary.training.trainer import DictionaryTrainer, StepMetrics
from monitor.errors import ConfigurationError, DictionaryError

METRICS = "metrics.jsonl"
"""File of step metrics in the run's folder."""
LOGGED = 400
"""Approximate number of lines in the metrics file of a run."""


class RunProgress(Protocol):
    """Is told how far a run is."""

    def read(self, tokens: int) -> None:
        """The model has read so many more tokens to train on."""

    def step(self, metrics: StepMetrics) -> None:
        """A step of training has ended."""

    def measured(self, tokens: int) -> None:
        """The dictionary was measured on so many more held-out tokens."""


@dataclass(frozen=True)
class TrainingInputs:
    """The model, as functions, and its text, as token ids."""

    rows: Callable[[], Iterator[PackedText]]
    """Gives a new iterator over the training rows; they are the same every time."""
    held_out: Sequence[PackedText]
    """Batches of rows for measuring."""
    residuals: Residuals
    """Gives residuals for training. They may be of low precision."""
    exact_residuals: Residuals
    """Gives residuals for measuring."""
    logits: Logits
    d_model: int
    device: torch.device
    card: DictionaryCard
    """Card of the dictionary to be trained: model, hook point and so on, without measured values."""

    def measured_limit(self) -> float:
        """The norm above which a residual is an attention sink's, from the first held-out batch.

        It is the same for every process and for a run that goes on. Raises DictionaryError where all residuals are NaN.
        """
        batch = self.held_out[0]
        limit = norm_limit(self.exact_residuals(batch.ids), batch.positions)
        if math.isinf(limit):
            raise DictionaryError(
                "all residuals are NaN where the dictionary reads the model; give the model another dtype"
            )
        return limit


@dataclass(frozen=True)
class Storage:
    """Where and how a run is saved."""

    folder: Path
    restart: bool = False
    """True ignores a checkpoint in the folder."""
    every: float = 300.0
    """Seconds between checkpoints."""
    weights: torch.dtype = torch.float32
    """Type in which encoder and decoder are stored."""


def train_dictionary(
    settings: TrainSettings, inputs: TrainingInputs, storage: Storage, progress: RunProgress
) -> TrainingReport:
    """Train a dictionary, measure it and save it. A run that was stopped is resumed from its checkpoint.

    Args:
        settings: how to train.
        inputs: the model and its text.
        storage: where to save. Of several processes, only the first one saves.
        progress: is told how far the run is.

    Raises:
        ConfigurationError: the settings contradict the checkpoint, or the text ends too soon.
        DictionaryError: the loss is not finite.
    """
    trainer = DictionaryTrainer(settings, inputs.d_model, device=inputs.device)
    limit = inputs.measured_limit()
    harvest = _Timed(inputs.residuals, progress)
    stream = ActivationStream(
        inputs.rows,
        harvest,
        limit=limit,
        batch=trainer.local_batch,
        # A short run would otherwise fill a buffer of which it trains on a part.
        buffer=min(trainer.settings.buffer, trainer.settings.tokens // processes.size()),
        seed=trainer.settings.seed,
    )
    resumed = not storage.restart and checkpoint.load(storage.folder, trainer)
    first_step, started = trainer.step_index, time.monotonic()
    batches = stream.batches(first_step)
    if not resumed:
        batches = _initialised(trainer, batches)
    history = _loop(trainer, batches, storage, progress)
    seconds = time.monotonic() - started
    report = _measured(trainer, inputs, storage, (history, limit), progress)
    return dataclasses.replace(
        report,
        seconds=seconds,
        harvest_seconds=harvest.seconds,
        tokens=(trainer.step_index - first_step) * trainer.settings.batch,
        outliers=stream.outliers,
    )


def save_run(report: TrainingReport, storage: Storage) -> None:
    """Write the report to the run's folder, and delete the checkpoint."""
    write_report(storage.folder, report)
    (storage.folder / checkpoint.FILE).unlink(missing_ok=True)


class _Timed:
    """Calls a residuals function, sums the time that it takes and tells of the tokens."""

    def __init__(self, residuals: Residuals, progress: RunProgress) -> None:
        self._residuals, self._progress = residuals, progress
        self.seconds = 0.0

    def __call__(self, ids: Tensor) -> Tensor:
        started = time.monotonic()
        out = self._residuals(ids)
        if out.device.type == "cuda":
            torch.cuda.synchronize(out.device)
        self.seconds += time.monotonic() - started
        self._progress.read(ids.numel())
        return out


def _initialised(trainer: DictionaryTrainer, batches: Iterator[Tensor]) -> Iterator[Tensor]:
    first = next(batches, None)
    if first is None:
        raise ConfigurationError(
            f"the text does not fill one buffer of {trainer.settings.buffer} tokens; give more, or a smaller buffer"
        )
    trainer.initialise(first)
    return chain([first], batches)


def _loop(
    trainer: DictionaryTrainer, batches: Iterator[Tensor], storage: Storage, progress: RunProgress
) -> tuple[StepMetrics, ...]:
    storage.folder.mkdir(parents=True, exist_ok=True)
    path = storage.folder / METRICS
    history = _history_before(path, trainer.step_index)
    each = max(1, trainer.settings.steps // LOGGED)
    saved = time.monotonic()
    first = processes.rank() == 0
    try:
        for metrics in trainer.run(batches):
            progress.step(metrics)
            if metrics.step % each == 0 or metrics.step == trainer.settings.steps - 1:
                history.append(metrics)
                if first:
                    _append(path, metrics)
            if first and time.monotonic() - saved > storage.every:
                checkpoint.save(storage.folder, trainer)
                saved = time.monotonic()
    finally:
        if first and trainer.step_index:
            checkpoint.save(storage.folder, trainer)
    if trainer.step_index < trainer.settings.steps:
        raise ConfigurationError(
            f"the text ended after {trainer.step_index * trainer.settings.batch} tokens of "
            f"{trainer.settings.tokens}; give more text, or train on fewer tokens"
        )
    return tuple(history)


def _history_before(path: Path, step: int) -> list[StepMetrics]:
    """Metrics of the steps before `step`, from an earlier part of the run. Later ones are removed from the file."""
    kept = []
    if path.exists() and step:
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.endswith("}")]
        kept = [StepMetrics(**line) for line in lines if line["step"] < step]
    if processes.rank() == 0:
        path.write_text("".join(json.dumps(dataclasses.asdict(metrics)) + "\n" for metrics in kept), "utf-8")
    return kept


def _append(path: Path, metrics: StepMetrics) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(dataclasses.asdict(metrics)) + "\n")


def _measured(
    trainer: DictionaryTrainer,
    inputs: TrainingInputs,
    storage: Storage,
    trained: tuple[tuple[StepMetrics, ...], float],
    progress: RunProgress,
) -> TrainingReport:
    """The report, without times; `trained` is the history of the run and the norm limit that it used."""
    history, limit = trained
    sae = trainer.dictionary().to(dtype=storage.weights).to(dtype=torch.float32)  # as it will be read back
    found = measure_quality(
        sae,
        inputs.held_out,
        inputs.exact_residuals,
        inputs.logits,
        limit=limit,
        progress=progress.measured,
    )
    card = dataclasses.replace(
        inputs.card, l0=found.l0, explained_variance=found.explained_variance, norm_limit=limit
    )
    if processes.rank() == 0:
        save_saelens(storage.folder, sae, card, density=found.density, dtype=storage.weights)
    return TrainingReport(trainer.settings, card, found, history, 0.0, 0.0, 0, 0)
