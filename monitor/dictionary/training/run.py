"""A whole run: activations in, a dictionary folder out.

Knows the order: resume or begin, train, measure, save, report. Does not know models or files of text: the
command line gives them as functions (`Subject`).
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
from monitor.dictionary.training.evaluate import Logits, evaluate
from monitor.dictionary.training.report import Report, write_report
from monitor.dictionary.training.settings import TrainSettings
from monitor.dictionary.training.stream import ActivationStream, Residuals
from monitor.dictionary.training.trainer import Metrics, Trainer
from monitor.errors import ConfigurationError

METRICS = "metrics.jsonl"
LOGGED = 400
"""About so many lines in the metrics file."""

Watch = Callable[[Metrics], None]


@dataclass(frozen=True)
class Subject:
    """The model, as functions, and the text that it reads."""

    rows: Callable[[], Iterator[Tensor]]
    """A fresh iterator over the training rows `[length]` of ids, always the same."""
    held_out: Sequence[Tensor]
    """Batches of ids `[rows, length]` for measuring."""
    residuals: Residuals
    """For training: may be fast and rough."""
    exact_residuals: Residuals
    """For measuring."""
    logits: Logits
    bos: int | None
    d_model: int
    device: torch.device
    card: DictionaryCard


@dataclass(frozen=True)
class Storage:
    """Where a run is kept."""

    folder: Path
    restart: bool = False
    """Begin anew even where a checkpoint lies."""
    every: float = 300.0
    """Seconds between checkpoints."""
    weights: torch.dtype = torch.float32
    """How encoder and decoder are stored."""


def train_dictionary(settings: TrainSettings, subject: Subject, storage: Storage, watch: Watch) -> Report:
    """Train, measure, save. `watch` sees every step.

    A run that was stopped goes on from its checkpoint. Of several processes, the first one saves.
    Raises ConfigurationError (settings, text that ends too soon) and DictionaryError (a loss that is not finite).
    """
    trainer = Trainer(settings, subject.d_model, device=subject.device)
    harvest = _Timed(subject.residuals)
    stream = ActivationStream(
        subject.rows,
        harvest,
        bos=subject.bos,
        batch=trainer.local_batch,
        buffer=trainer.settings.buffer,
        seed=trainer.settings.seed,
    )
    resumed = not storage.restart and checkpoint.load(storage.folder, trainer)
    first_step, started = trainer.step_index, time.monotonic()
    batches = stream.batches(first_step)
    if not resumed:
        batches = _begun(trainer, batches)
    history = _loop(trainer, batches, storage, watch)
    seconds = time.monotonic() - started
    report = _measured(trainer, subject, storage, history)
    return dataclasses.replace(
        report,
        seconds=seconds,
        harvest_seconds=harvest.seconds,
        tokens=(trainer.step_index - first_step) * trainer.settings.batch,
        outliers=stream.outliers,
    )


def save_run(report: Report, storage: Storage) -> None:
    """The report beside the dictionary; the checkpoint is no longer needed."""
    write_report(storage.folder, report)
    (storage.folder / checkpoint.FILE).unlink(missing_ok=True)


class _Timed:
    """Residuals, and how long they took."""

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


def _begun(trainer: Trainer, batches: Iterator[Tensor]) -> Iterator[Tensor]:
    first = next(batches, None)
    if first is None:
        raise ConfigurationError(
            f"the text does not fill one buffer of {trainer.settings.buffer} tokens; give more, or a smaller buffer"
        )
    trainer.begin(first)
    return chain([first], batches)


def _loop(trainer: Trainer, batches: Iterator[Tensor], storage: Storage, watch: Watch) -> tuple[Metrics, ...]:
    storage.folder.mkdir(parents=True, exist_ok=True)
    path = storage.folder / METRICS
    history = _history_before(path, trainer.step_index)
    each = max(1, trainer.settings.steps // LOGGED)
    saved = time.monotonic()
    first = processes.rank() == 0
    try:
        for metrics in trainer.run(batches):
            watch(metrics)
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
            f"the text ended after {trainer.step_index * trainer.settings.batch} tokens of {trainer.settings.tokens}"
        )
    return tuple(history)


def _history_before(path: Path, step: int) -> list[Metrics]:
    """Metrics of an earlier stretch; the file is cut to the steps that count."""
    kept = []
    if path.exists() and step:
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.endswith("}")]
        kept = [Metrics(**line) for line in lines if line["step"] < step]
    if processes.rank() == 0:
        path.write_text("".join(json.dumps(dataclasses.asdict(metrics)) + "\n" for metrics in kept), "utf-8")
    return kept


def _append(path: Path, metrics: Metrics) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(dataclasses.asdict(metrics)) + "\n")


def _measured(trainer: Trainer, subject: Subject, storage: Storage, history: tuple[Metrics, ...]) -> Report:
    sae = trainer.dictionary().to(dtype=storage.weights).to(dtype=torch.float32)  # as it will be read back
    found = evaluate(sae, subject.held_out, subject.exact_residuals, subject.logits, bos=subject.bos)
    card = dataclasses.replace(subject.card, l0=found.l0, explained_variance=found.explained_variance)
    if processes.rank() == 0:
        save_saelens(storage.folder, sae, card, density=found.density, dtype=storage.weights)
    return Report(trainer.settings, card, found, history, 0.0, 0.0, 0, 0)
