"""`python -m monitor.recipes.tiny.dictionary`: trains the bundled model's dictionary, in one command.

It reads what the model was trained on, in the shares of the end of that training.
"""

import json
from pathlib import Path
from typing import Annotated

import torch
import typer

from monitor.dictionary.training.progress import RunLines
from monitor.dictionary.training.settings import TrainSettings
from monitor.lab.training import (
    TrainingText,
    open_subject,
    storage_of,
    together,
    train_into,
    verify_trained,
)
from monitor.recipes.corpus import corpora
from monitor.recipes.tiny.gradients import keep_freed_memory
from monitor.recipes.tiny.plan import END_MIXTURE

app = typer.Typer(add_completion=False)

FEATURES, K = 4096, 32
CONTEXT, HELD_OUT = 256, 200_000
"""Tokens in a context, and tokens to measure on."""
LEARNING_RATE = 1e-3
"""What the shipped dictionary was trained with, for fewer dead features; its README measures what that costs."""


def write_texts(data: Path, folder: Path) -> list[str]:
    """Write the training halves of all corpora as JSON lines; returns `PATH=SHARE` of each."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = []
    for name, documents in corpora(data).items():
        share = END_MIXTURE.get(name, 0.0)
        texts = [document.text for document in documents if document.split == "train"]
        if share and texts:
            path = folder / f"{name.replace('/', '_')}.jsonl"
            path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
            sources.append(f"{path}={share}")
    return sources


@app.command()
def main(
    data: Annotated[
        Path,
        typer.Option(
            help="Train on the texts of this folder, in corpus/ and labelled/.", exists=True, file_okay=False
        ),
    ],
    model: Annotated[
        Path,
        typer.Option(help="Learn the activations of the model in this folder.", exists=True, file_okay=False),
    ],
    out: Annotated[
        Path, typer.Option(help="Write the dictionary to this folder; go on from the checkpoint in it.")
    ],
    text: Annotated[
        Path, typer.Option(help="Write the prepared text to this folder, outside the repository.")
    ],
    tokens: Annotated[int, typer.Option(help="Train on so many tokens.", min=1)] = 16_000_000,
    threads: Annotated[
        int | None, typer.Option(help="Use so many CPU threads; all by default.", min=1)
    ] = None,
) -> None:
    """Train the bundled dictionary: text, activations of the middle layer, BatchTopK, report and picture."""
    if threads is not None:
        torch.set_num_threads(threads)
    keep_freed_memory()
    settings = TrainSettings(features=FEATURES, tokens=tokens, k=K, learning_rate=LEARNING_RATE)
    sources = tuple(write_texts(data, text))
    with together():
        subject = open_subject(TrainingText(str(model), None, sources, CONTEXT, HELD_OUT, "auto"))
        storage = storage_of(out, weights="bfloat16")
        progress = RunLines(settings, subject.measured, typer.echo)
        train_into(storage, settings, subject, progress, plot=True)
        if not (test := verify_trained(out, subject)).passed:
            typer.echo(test.explained())
    typer.echo(f"saved in {out}")


if __name__ == "__main__":
    app()
