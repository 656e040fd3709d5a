"""`sae-monitor dictionary train | sweep`: trains a dictionary, or one for each combination of some settings."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.table import Table

from monitor.cli.dictionary.info import print_lines
from monitor.cli.show.console import stderr_console, stdout_console
from monitor.dictionary.training.settings import Objective, TrainSettings
from monitor.errors import ConfigurationError
from monitor.settings import load_settings

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from monitor.dictionary.training.report import TrainingReport
    from monitor.dictionary.training.run import RunProgress
    from monitor.dictionary.training.trainer import StepMetrics
    from monitor.lab.training import TrainingSubject
    from monitor.model.selftest.result import SelfTest

SWEEP_HELD_OUT = 50_000
"""Most tokens that each dictionary of a sweep is measured on by default."""

Number = TypeVar("Number", int, float)

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
    int | None,
    typer.Option(
        min=1,
        help="Number of tokens to keep out of training, for measuring the result. Default: a tenth of the tokens to "
        "train on, between 8,192 and 200,000.",
    ),
]
Buffer = Annotated[int, typer.Option(help="Number of activations that are shuffled together in memory.")]
Device = Annotated[str, typer.Option(help="Device to train on: auto, cpu, cuda or cuda:N.")]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile", help="Compile the model's layers first: it reads faster, after some seconds (g++)."
    ),
]
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
    held_out: HeldOut = None,
    buffer: Buffer = 262_144,
    weights: Annotated[
        str, typer.Option(help="Number type of the weights in the saved dictionary: float32 or bfloat16.")
    ] = "float32",
    device: Device = "auto",
    compile: Compile = False,
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
    from monitor.lab.training import held_out_for, is_first, storage_of, train_into, verify_trained

    with _subject(model, layer, data, length, held_out or held_out_for(tokens), device, compile) as subject:
        storage = storage_of(out, restart=restart, weights=weights)
        with _stoppable(out), _progress(settings, subject) as progress:
            report = train_into(storage, settings, subject, progress, plot=plot)
        if is_first():
            _print(report, out)
            _print_test(verify_trained(out, subject))


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
    held_out: HeldOut = None,
    buffer: Buffer = 131_072,
    device: Device = "auto",
    compile: Compile = False,
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
    from monitor.lab.training import held_out_for

    plan = SweepPlan(_numbers(features, int), _numbers(tokens, int), _numbers(learning_rates, float))
    base = TrainSettings(
        plan.features[0], plan.tokens[0], objective, k, sparsity, batch=batch, buffer=buffer, seed=seed
    )
    measured = held_out or min(held_out_for(max(plan.tokens)), SWEEP_HELD_OUT)
    with _subject(model, layer, data, length, measured, device, compile) as subject:
        rows = [_swept(out, settings, subject) for settings in plan.runs(base)]
        _print_left_out(subject.reader.left_out)
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
    model: str, layer: int | None, data: list[str], length: int, held_out: int, device: str, compile: bool
) -> Iterator[TrainingSubject]:
    from monitor.lab.training import TrainingText, open_subject, together

    text = TrainingText(
        model, layer, tuple(data), length, held_out, device, compile, cache=load_settings().cache
    )
    with together():
        yield open_subject(text)


@contextmanager
def _stoppable(out: Path) -> Iterator[None]:
    """Control-C ends the command and says how the run goes on."""
    try:
        yield
    except KeyboardInterrupt:
        stderr_console().print(f"stopped; the same command goes on from {out}")
        raise typer.Exit(130) from None


def _swept(out: Path, settings: TrainSettings, subject: TrainingSubject) -> dict[str, Any]:
    from monitor.lab.training import train_for_sweep

    with _stoppable(out), _progress(settings, subject) as progress:
        return train_for_sweep(out, settings, subject, progress)


def _print(report: TrainingReport, out: Path) -> None:
    from monitor.dictionary.training.report import results

    print_lines({**results(report.evaluation), "tokens_per_second": round(report.tokens_per_second)})
    stdout_console().print(f"saved in {out}", soft_wrap=True)
    _print_left_out(report.texts_left_out)


def _print_left_out(texts: int) -> None:
    if texts:
        from monitor.model.prompts import not_read

        stderr_console().print(not_read(texts), soft_wrap=True)


def _print_test(test: SelfTest) -> None:
    found = test.measured
    if test.passed:
        stdout_console().print(
            f"verified: on the self-test's texts L0 {found.l0:.1f}, explained variance "
            f"{found.explained_variance:.3f}; recorded for the commands that open this pair",
            soft_wrap=True,
        )
        return
    stderr_console().print(f"not verified, and nothing is recorded: {test.explained()}", soft_wrap=True)


@contextmanager
def _progress(settings: TrainSettings, subject: TrainingSubject) -> Iterator[RunProgress]:
    """Progress on standard error: a bar on a terminal, plain lines elsewhere; only the first process shows any."""
    from monitor.dictionary.training.progress import RunLines
    from monitor.lab.training import is_first

    console = stderr_console()
    if not is_first():
        yield RunLines(settings, subject.measured, lambda line: None)
    elif console.is_terminal:
        with _bar(settings, subject.measured, console) as progress:
            yield progress
    else:
        yield RunLines(settings, subject.measured, partial(console.print, soft_wrap=True))


@contextmanager
def _bar(settings: TrainSettings, measured: int, console: Console) -> Iterator[RunProgress]:
    """A progress bar, and a line of numbers at every twentieth of the run."""
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"))
    with Progress(*columns, console=console, transient=True) as bar:
        yield RunBar(bar, settings, measured)


class RunBar:
    """`RunProgress` as a bar on a terminal."""

    def __init__(self, bar: Progress, settings: TrainSettings, measured: int) -> None:
        from monitor.dictionary.training.progress import RunPace

        self._bar, self._settings = bar, settings
        self._task = bar.add_task("reading the first text", total=settings.steps)
        self._measuring = bar.add_task("measuring", total=measured, visible=False)
        self._pace = RunPace(settings, measured)
        self._begun = False

    def read(self, tokens: int) -> None:
        """The model has read so many more tokens."""
        from monitor.dictionary.training.progress import RunPart, duration

        self._pace.add(RunPart.READ, tokens)
        if not self._begun:
            left = duration(self._pace.seconds_left())
            self._bar.update(self._task, description=f"reading the first text, about {left} left in all")

    def step(self, metrics: StepMetrics) -> None:
        """A step of training has ended."""
        from monitor.dictionary.training.progress import RunPart, duration, numbers_of

        if not self._begun:
            self._pace.resume(metrics.tokens - self._settings.batch)
            self._begun = True
        self._pace.add(RunPart.TRAIN, self._settings.batch)
        left = duration(self._pace.seconds_left())
        self._bar.update(
            self._task, completed=metrics.step + 1, description=f"{numbers_of(metrics)}  about {left} left"
        )
        if metrics.step % max(1, self._settings.steps // 20) == 0 or metrics.step == self._settings.steps - 1:
            self._bar.console.print(
                f"{metrics.tokens:>12,} tokens  loss {metrics.loss:9.3f}  {numbers_of(metrics)}"
            )

    def measured(self, tokens: int) -> None:
        """The dictionary was measured on so many more tokens."""
        self._bar.update(self._measuring, advance=tokens, visible=True)
