"""A whole training run: start or resume it, train, measure the dictionary, save it and report.

The model and its text come as functions (`TrainingInputs`).
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from monitor.dictionary.formats import DictionaryCard, save_saelens
from monitor.dictionary.training import checkpoint, processes
from monitor.dictionary.training.quality import Logits, measure_quality
from monitor.dictionary.training.report import TrainingReport, write_report
from monitor.dictionary.training.settings import TrainSettings
from monitor.dictionary.training.stream import ActivationStream, Residuals
from monitor.dictionary.training.trainer import DictionaryTrainer, StepMetrics
from monitor.errors import ConfigurationError

METRICS = "metrics.jsonl"
"""File of step metrics in the run's folder."""
LOGGED = 400
"""Approximate number of lines in the metrics file of a run."""

StepCallback = Callable[[StepMetrics], None]
"""Called after every step with its metrics, for progress."""


@dataclass(frozen=True)
class TrainingInputs:
    """The model, as functions, and its text, as token ids."""

    rows: Callable[[], Iterator[Tensor]]
    """Gives a new iterator over the training rows of token ids `[length]`; they are the same every time."""
    held_out: Sequence[Tensor]
    """Batches of token ids `[rows, length]` for measuring."""
    residuals: Residuals
    """Gives residuals for training. They may be of low precision."""
    exact_residuals: Residuals
    """Gives residuals for measuring."""
    logits: Logits
    bos: int | None
    """Id of the token that begins a text; None where there is none."""
    d_model: int
    device: torch.device
    card: DictionaryCard
    """Card of the dictionary to be trained: model, hook point and so on, without measured values."""


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
    settings: TrainSettings, inputs: TrainingInputs, storage: Storage, on_step: StepCallback
) -> TrainingReport:
    """Train a dictionary, measure it and save it. A run that was stopped is resumed from its checkpoint.

    Args:
        settings: how to train.
        inputs: the model and its text.
        storage: where to save. Of several processes, only the first one saves.
        on_step: called after every step with its metrics.

    Raises:
        ConfigurationError: the settings contradict the checkpoint, or the text ends too soon.
        DictionaryError: the loss is not finite.
    """
    trainer = DictionaryTrainer(settings, inputs.d_model, device=inputs.device)
    harvest = _Timed(inputs.residuals)
    stream = ActivationStream(
        inputs.rows,
        harvest,
        bos=inputs.bos,
        batch=trainer.local_batch,
        buffer=trainer.settings.buffer,
        seed=trainer.settings.seed,
    )
    resumed = not storage.restart and checkpoint.load(storage.folder, trainer)
    first_step, started = trainer.step_index, time.monotonic()
    batches = stream.batches(first_step)
    if not resumed:
        batches = _initialised(trainer, batches)
    history = _loop(trainer, batches, storage, on_step)
    seconds = time.monotonic() - started
    report = _measured(trainer, inputs, storage, history)
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
    """Calls a residuals function and sums the time that it takes."""

    def __init__(self, residuals: Residuals) -> None:
        self._residuals = residuals
        self.seconds = 0.0

    def __call__(self, ids: Tensor) -> Tensor:
        started = time.monotonic()
        out = self._residuals(ids)
        if out.device.type == "cuda":
            torch.cuda.synchronize(out.device)
        self.seconds += time.monotonic() - started
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
    trainer: DictionaryTrainer, batches: Iterator[Tensor], storage: Storage, on_step: StepCallback
) -> tuple[StepMetrics, ...]:
    storage.folder.mkdir(parents=True, exist_ok=True)
    path = storage.folder / METRICS
    history = _history_before(path, trainer.step_index)
    each = max(1, trainer.settings.steps // LOGGED)
    saved = time.monotonic()
    first = processes.rank() == 0
    try:
        for metrics in trainer.run(batches):
            on_step(metrics)
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
    trainer: DictionaryTrainer, inputs: TrainingInputs, storage: Storage, history: tuple[StepMetrics, ...]
) -> TrainingReport:
    sae = trainer.dictionary().to(dtype=storage.weights).to(dtype=torch.float32)  # as it will be read back
    found = measure_quality(sae, inputs.held_out, inputs.exact_residuals, inputs.logits, bos=inputs.bos)
    card = dataclasses.replace(inputs.card, l0=found.l0, explained_variance=found.explained_variance)
    if processes.rank() == 0:
        save_saelens(storage.folder, sae, card, density=found.density, dtype=storage.weights)
    return TrainingReport(trainer.settings, card, found, history, 0.0, 0.0, 0, 0)
