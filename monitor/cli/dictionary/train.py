"""`sae-monitor dictionary train | sweep`: trains a dictionary, or one for each combination of some settings."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.table import Table

from monitor.cli.dictionary.info import print_lines
from monitor.cli.show.console import stderr_console, stdout_console
from monitor.dictionary.training.settings import Objective, TrainSettings
from monitor.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.console import Console

    from monitor.dictionary.training.report import TrainingReport
    from monitor.dictionary.training.run import Storage, TrainingInputs
    from monitor.dictionary.training.trainer import StepMetrics

Number = TypeVar("Number", int, float)
LINE_SECONDS = 30.0
"""Seconds between two progress lines where standard error is no terminal."""

Model = Annotated[
    str,
    typer.Option(metavar="NAME|FOLDER", help="Language model: a name on the Hugging Face hub, or a folder."),
]
Layer = Annotated[
    int | None, typer.Option(help="Decoder layer to train on, counted from 0. Default: the middle one.")
]
Data = Annotated[
    list[str],
    typer.Option(
        metavar="PATH[=SHARE]",
        help="Texts to train on: a .jsonl, .jsonl.xz or .txt file, or a folder of them. SHARE weighs it against the "
        "others. Repeatable.",
    ),
]
Out = Annotated[Path, typer.Option(help="Folder to write the dictionary to.")]
Kind = Annotated[
    Objective,
    typer.Option(
        help="What is trained: batchtopk keeps the k strongest activations per token on average; jumprelu learns a "
        "threshold for each feature; paper is a ReLU with an L1 penalty, as in Scaling Monosemanticity."
    ),
]
Active = Annotated[int, typer.Option(help="Mean number of active features per token, for batchtopk.")]
Sparsity = Annotated[
    float | None,
    typer.Option(
        help="Weight λ of the sparsity penalty, for jumprelu and paper. Default: chosen by the size of the dictionary."
    ),
]
Batch = Annotated[int, typer.Option(help="Tokens in one training step.")]
Length = Annotated[int, typer.Option(min=2, help="Tokens that the model reads at once, at most its context.")]
HeldOut = Annotated[
    int, typer.Option(min=1, help="Number of tokens to keep out of training, for measuring the result.")
]
Buffer = Annotated[int, typer.Option(help="Number of activations that are shuffled together in memory.")]
Device = Annotated[str, typer.Option(help="Device to train on: auto, cpu, cuda or cuda:N.")]
Seed = Annotated[int, typer.Option(help="Seed of the initial weights and of the order of texts.")]


def train(
    model: Model,
    data: Data,
    features: Annotated[int, typer.Option(help="Number of features of the dictionary.")],
    out: Out,
    layer: Layer = None,
    tokens: Annotated[int, typer.Option(help="Tokens to train on.")] = 10_000_000,
    objective: Kind = Objective.BATCHTOPK,
    k: Active = 32,
    sparsity: Sparsity = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak learning rate. Default: chosen by the size of the dictionary.")
    ] = None,
    batch: Batch = 4096,
    length: Length = 256,
    held_out: HeldOut = 200_000,
    buffer: Buffer = 262_144,
    weights: Annotated[
        str, typer.Option(help="Number type of the weights in the saved dictionary: float32 or bfloat16.")
    ] = "float32",
    device: Device = "auto",
    seed: Seed = 0,
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Begin again, even where a checkpoint of this run is in the folder."),
    ] = False,
    plot: Annotated[
        bool, typer.Option(help="Draw the training curves as training.png (needs the extra `plots`).")
    ] = True,
) -> None:
    """Train a dictionary for a model. Give the same command again to continue a run that was stopped.

    On several GPUs: torchrun --nproc-per-node N -m monitor dictionary train …
    """
    _can_draw(plot)
    settings = TrainSettings(
        features=features,
        tokens=tokens,
        objective=objective,
        k=min(k, features),
        sparsity=sparsity,
        learning_rate=learning_rate,
        batch=batch,
        buffer=buffer,
        seed=seed,
    )
    with _subject(model, layer, data, length, held_out, device) as subject:
        report = _train(settings, subject, _storage(out, restart, weights))
        if _first():
            _finish(report, _storage(out, restart, weights), plot)


def sweep(
    model: Model,
    data: Data,
    out: Out,
    features: Annotated[
        str, typer.Option(metavar="N,N,…", help="Numbers of features to train with.")
    ] = "1024,2048,4096",
    tokens: Annotated[
        str, typer.Option(metavar="N,N,…", help="Numbers of tokens to train on.")
    ] = "500000,1000000,2000000",
    learning_rates: Annotated[
        str, typer.Option(metavar="X,X,…", help="Peak learning rates to train with.")
    ] = "5e-4,1e-3,2e-3",
    layer: Layer = None,
    objective: Kind = Objective.BATCHTOPK,
    k: Active = 32,
    sparsity: Sparsity = None,
    batch: Batch = 4096,
    length: Length = 256,
    held_out: HeldOut = 50_000,
    buffer: Buffer = 131_072,
    device: Device = "auto",
    seed: Seed = 0,
    plot: Annotated[
        bool, typer.Option(help="Draw loss against compute as sweep.png (needs the extra `plots`).")
    ] = True,
) -> None:
    """Train a dictionary for every combination of features, tokens and learning rates; draw how the loss scales.

    Combinations that are finished in the folder are not trained again.
    """
    _can_draw(plot)
    from monitor.dictionary.training.sweep import SweepPlan, write_sweep

    plan = SweepPlan(_numbers(features, int), _numbers(tokens, int), _numbers(learning_rates, float))
    base = TrainSettings(
        plan.features[0], plan.tokens[0], objective, k, sparsity, batch=batch, buffer=buffer, seed=seed
    )
    with _subject(model, layer, data, length, held_out, device) as subject:
        rows = [_swept(settings, subject, out) for settings in plan.runs(base)]
    write_sweep(out, rows)
    if plot:
        from monitor.dictionary.training.plots import draw_sweep

        draw_sweep(rows, out / "sweep.png")
    table = Table("features", "tokens", "learning rate", "loss", "FVU", "L0", "dead", "seconds", box=None)
    for row in rows:
        numbers = (f"{row['loss']:.4g}", f"{row['fvu']:.4f}", f"{row['l0']:.1f}", f"{row['dead_share']:.3f}")
        table.add_row(
            str(row["features"]),
            f"{row['tokens']:,}",
            f"{row['learning_rate']:g}",
            *numbers,
            f"{row['seconds']:.0f}",
        )
    stdout_console().print(table)


def _can_draw(plot: bool) -> None:
    """ConfigurationError before the long part, where a picture is wanted and could not be drawn after it."""
    if plot and importlib.util.find_spec("matplotlib") is None:
        raise ConfigurationError(
            "--plot needs the extra `plots`: pip install 'sae-monitor[plots]', or give --no-plot"
        )


def _numbers(text: str, kind: Callable[[str], Number]) -> tuple[Number, ...]:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigurationError(f"{text!r} is not a list of numbers separated by commas") from error


@contextmanager
def _subject(
    model: str, layer: int | None, data: list[str], length: int, held_out: int, device: str
) -> Iterator[TrainingInputs]:
    from monitor.lab.training_subject import Reading, open_subject, together

    with together():
        yield open_subject(Reading(model, layer, tuple(data), length, held_out, device))


def _first() -> bool:
    from monitor.dictionary.training import processes

    return processes.rank() == 0


def _storage(out: Path, restart: bool, weights: str) -> Storage:
    import torch

    from monitor.dictionary.training.run import Storage

    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if weights not in kinds:
        raise ConfigurationError(f"--weights {weights} is not one of {', '.join(kinds)}")
    return Storage(out, restart, weights=kinds[weights])


def _train(settings: TrainSettings, subject: TrainingInputs, storage: Storage) -> TrainingReport:
    from monitor.dictionary.training.run import train_dictionary

    try:
        with _progress(settings) as watch:
            return train_dictionary(settings, subject, storage, watch)
    except KeyboardInterrupt:
        stderr_console().print(f"stopped; the same command goes on from {storage.folder}")
        raise typer.Exit(130) from None


def _swept(settings: TrainSettings, subject: TrainingInputs, out: Path) -> dict[str, Any]:
    from monitor.dictionary.training.run import save_run
    from monitor.dictionary.training.sweep import summary

    folder = out / f"{settings.features}-{settings.tokens}-{settings.learning_rate:g}"
    row = folder / "row.json"
    asked = json.loads(json.dumps(dataclasses.asdict(settings)))
    if row.is_file():
        return _done(row, asked)
    storage = _storage(folder, restart=False, weights="float32")
    report = _train(settings, subject, storage)
    save_run(report, storage)
    found = summary(report, subject.d_model)
    row.write_text(json.dumps(found | {"asked": asked}) + "\n", "utf-8")
    return found


def _done(row: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a run that is finished. ConfigurationError where it was another one."""
    found: dict[str, Any] = json.loads(row.read_text("utf-8"))
    before = found.pop("asked", {})
    other = [
        f"{name} {before.get(name)}, not {value}"
        for name, value in asked.items()
        if before.get(name) != value
    ]
    if other:
        raise ConfigurationError(
            f"{row.parent} holds a run with {'; '.join(other)}; give another --out, or delete it"
        )
    return found


def _finish(report: TrainingReport, storage: Storage, plot: bool) -> None:
    from monitor.dictionary.training.plots import draw_training
    from monitor.dictionary.training.report import results
    from monitor.dictionary.training.run import save_run

    save_run(report, storage)
    if plot:
        draw_training(report.as_json(), storage.folder / "training.png")
    print_lines({**results(report.evaluation), "tokens_per_second": round(report.tokens_per_second)})
    stdout_console().print(f"saved in {storage.folder}", soft_wrap=True)


@contextmanager
def _progress(settings: TrainSettings) -> Iterator[Callable[[StepMetrics], None]]:
    """Progress on standard error: a bar on a terminal, plain lines elsewhere; only the first process shows any."""
    console = stderr_console()
    if not _first():
        yield lambda metrics: None
    elif console.is_terminal:
        with _bar(settings, console) as on_step:
            yield on_step
    else:
        yield ProgressLines(settings, partial(console.print, soft_wrap=True))


@contextmanager
def _bar(settings: TrainSettings, console: Console) -> Iterator[Callable[[StepMetrics], None]]:
    """A progress bar, and a line of numbers at every twentieth of the run."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeRemainingColumn(),
    )
    each = max(1, settings.steps // 20)
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("training", total=settings.steps)

        def on_step(metrics: StepMetrics) -> None:
            bar.update(task, completed=metrics.step + 1, description=_numbers_of(metrics))
            if metrics.step % each == 0 or metrics.step == settings.steps - 1:
                bar.console.print(
                    f"{metrics.tokens:>12,} tokens  loss {metrics.loss:9.3f}  {_numbers_of(metrics)}"
                )

        yield on_step


class ProgressLines:
    """Plain progress lines for output that is no terminal: at the first step, every 30 seconds and at the last step."""

    def __init__(
        self,
        settings: TrainSettings,
        write: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._write, self._clock = settings, write, clock
        self._started = self._last_line = clock()
        self._tokens_before: int | None = None
        write(
            f"training {settings.features:,} features on {settings.tokens:,} tokens; "
            f"a line follows every {LINE_SECONDS:.0f} seconds"
        )

    def __call__(self, metrics: StepMetrics) -> None:
        """Write a line where one is due."""
        now, last = self._clock(), metrics.step == self._settings.steps - 1
        if self._tokens_before is None:
            self._tokens_before = metrics.tokens - self._settings.batch
        elif now - self._last_line < LINE_SECONDS and not last:
            return
        self._last_line = now
        self._write(self._line(metrics, metrics.tokens - self._tokens_before, now - self._started))
        if last:
            self._write("training is complete; measuring the dictionary on held-out text")

    def _line(self, metrics: StepMetrics, tokens: int, seconds: float) -> str:
        """`tokens` were trained on in `seconds`; a resumed run began with more."""
        rate = tokens / max(seconds, 1e-9)
        left = timedelta(seconds=round((self._settings.tokens - metrics.tokens) / rate))
        return (
            f"{metrics.tokens:,} of {self._settings.tokens:,} tokens  {_numbers_of(metrics)}  "
            f"{rate:,.0f} tokens/s  {left} remaining"
        )


def _numbers_of(metrics: StepMetrics) -> str:
    return f"FVU {metrics.fvu:.4f}  L0 {metrics.l0:.1f}  dead {100 * metrics.dead:.1f} %"
