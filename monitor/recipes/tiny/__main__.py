"""`python -m monitor.recipes.tiny`: makes the bundled model from a data folder, in one command."""

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from monitor.recipes.tiny.evaluate import ROWS, Held
from monitor.recipes.tiny.gradients import keep_freed_memory
from monitor.recipes.tiny.pipeline import Folder, finish, prepare, train, trainer_of
from monitor.recipes.tiny.plan import Budget, PretrainingPlan
from monitor.recipes.tiny.trainer import Pretrainer

app = typer.Typer(add_completion=False)


@app.command()
def main(
    data: Annotated[
        Path,
        typer.Option(
            help="Train on the texts of this folder, in corpus/ and labelled/.", exists=True, file_okay=False
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Write cache, checkpoints, model and report to this folder, outside the repository."
        ),
    ],
    minutes: Annotated[
        float | None, typer.Option(help="Train for so many minutes, over all stretches.")
    ] = None,
    tokens: Annotated[int | None, typer.Option(help="Train on so many tokens instead of minutes.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --out.")] = False,
    workers: Annotated[
        int,
        typer.Option(
            help="Compute gradients in so many processes of one thread; 0 computes them in this one.", min=0
        ),
    ] = 3,
    checkpoint_every: Annotated[
        float, typer.Option(help="Write a checkpoint every so many seconds.", min=1)
    ] = 180,
    held_out_rows: Annotated[int, typer.Option(help="Measure on so many rows of each corpus.", min=1)] = ROWS,
) -> None:
    """Trains the demo model: tokenizer, token rows, training, export, report."""
    console = Console()
    folder, plan = Folder(out), PretrainingPlan()
    budget = _budget(minutes, tokens)
    if resume != folder.checkpoint.exists():
        hint = "holds no checkpoint: leave --resume out" if resume else "holds a checkpoint: add --resume"
        raise typer.BadParameter(f"{out} {hint}, or name another folder", param_hint="--out")
    torch.set_num_threads(workers or torch.get_num_threads())
    keep_freed_memory()
    tokenizer = prepare(data, folder, plan, console.print)
    trainer = trainer_of(folder, plan, tokenizer, resume, workers)
    with _bar(console) as bar:
        task = bar.add_task("training", total=1.0, tokens="", loss="")

        def tell(run: Pretrainer, progress: float) -> None:
            counters = run.counters
            bar.update(
                task, completed=progress, tokens=f"{counters.tokens / 1e6:.1f}M", loss=f"{counters.loss:.3f}"
            )

        train(trainer, budget, folder, checkpoint_every, tell)
    console.print("measuring the export")
    console.print(_table(finish(trainer, tokenizer, folder, held_out_rows)))


def _budget(minutes: float | None, tokens: int | None) -> Budget:
    try:
        return Budget(minutes, tokens)
    except ValueError as fault:
        raise typer.BadParameter(str(fault), param_hint="--minutes / --tokens") from fault


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.1f}%  {task.fields[tokens]} tokens  loss {task.fields[loss]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def _table(held: dict[str, Held]) -> Table:
    table = Table("held-out corpus", "tokens", "loss (nats)", "perplexity", "bits per byte")
    for name, row in held.items():
        table.add_row(
            name, f"{row.tokens:,}", f"{row.loss:.3f}", f"{row.perplexity:.1f}", f"{row.bits_per_byte:.3f}"
        )
    return table


if __name__ == "__main__":
    app()
