"""`python -m monitor.recipes.tiny.dictionary`: trains the demo model's dictionary, in one command.

It is trained on the model's training text, mixed in the shares of the end of the model's training. This module writes
that text to files and calls `sae-monitor dictionary train`.
"""

import json
from pathlib import Path
from typing import Annotated

import torch
import typer

from monitor.cli.dictionary.train import train
from monitor.recipes.tiny.corpus import corpora
from monitor.recipes.tiny.memory import keep_freed_memory
from monitor.recipes.tiny.plan import END_MIXTURE

app = typer.Typer(add_completion=False)

FEATURES, K = 4096, 32
LEARNING_RATE = 1e-3
"""The rate of the shipped dictionary. Higher ones reconstruct better and leave dead features; see the pair's README."""


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
        Path, typer.Option(help="Folder with corpus/ and labelled/.", exists=True, file_okay=False)
    ],
    model: Annotated[Path, typer.Option(help="Folder of the demo model.", exists=True, file_okay=False)],
    out: Annotated[Path, typer.Option(help="Folder of the dictionary; goes on from its checkpoint.")],
    text: Annotated[Path, typer.Option(help="Folder for the prepared text; outside the repo.")],
    tokens: Annotated[int, typer.Option(help="Tokens to train on.", min=1)] = 16_000_000,
    threads: Annotated[int | None, typer.Option(help="CPU threads; all when left out.", min=1)] = None,
) -> None:
    """Trains the demo dictionary: text, activations of the middle layer, BatchTopK, report and picture."""
    if threads is not None:
        torch.set_num_threads(threads)
    keep_freed_memory()
    train(
        model=str(model),
        data=write_texts(data, text),
        features=FEATURES,
        out=out,
        tokens=tokens,
        k=K,
        learning_rate=LEARNING_RATE,
        weights="bfloat16",
    )


if __name__ == "__main__":
    app()
