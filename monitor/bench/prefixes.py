"""What to keep of a cached prefix, readings or residuals: `python -m monitor.bench.prefixes`.

Inside vLLM a hit on the prefix cache is scored from what was kept with its blocks. Readings can be shown to the rules
as they are. Residuals would be read by the tap once more at each hit. In return they could still be read after a reload
of policies that name other features, where readings are useless and the prefix runs again, once. How long that takes is
measured with transformers, without vLLM.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from monitor.bench.around import bank_for, policies_for
from monitor.bench.models import MAKERS, Subject
from monitor.model.engine.readout import Readout, Taken
from monitor.model.load.hook_points import hidden_of
from monitor.model.tap.tap import Tap, TapBuffers
from monitor.vllm.prefixes import TapMemory, TapRows

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Kept:
    """What keeping a prefix one way takes."""

    way: str
    bytes_per_token: int
    hit: float
    """Median seconds of a hit, until the rules can be shown what was read."""
    reload: float
    """Median seconds of the first hit after a reload of policies that read other features."""


@app.command()
def main(
    model: Annotated[str, typer.Option(help="demo, smollm2 or random.")] = "smollm2",
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    tokens: Annotated[int, typer.Option(help="Length of the prefix.")] = 384,
    rounds: Annotated[int, typer.Option(help="How often each is measured.")] = 20,
) -> None:
    """Bytes and time of a cached prefix that is kept as readings, and as residuals."""
    subject = MAKERS[model]("auto", dtype)
    table = Table("kept", "bytes a token", "a hit, ms", "the first hit after a reload, ms")
    for kept in compared(subject, tokens, rounds):
        table.add_row(
            kept.way, f"{kept.bytes_per_token:,}", f"{1000 * kept.hit:.2f}", f"{1000 * kept.reload:.2f}"
        )
    table.title = f"{subject.name}: a prefix of {tokens} tokens"
    Console().print(table)


def compared(subject: Subject, tokens: int, rounds: int) -> tuple[Kept, Kept]:
    """Readings and residuals of one prefix of random tokens, measured in turns."""
    loaded = subject.loaded
    bank = bank_for(subject, policies_for(subject))
    tap, buffers = Tap(bank, loaded.layers[subject.layer]), TapBuffers(bank, tokens)
    buffers.begin([0])
    buffers.settle(bank)
    tap.use(buffers)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, loaded.model.config.vocab_size, (tokens,), generator=generator)
    memory, residuals = TapMemory(tap), residuals_of(subject, ids)
    tap.apply(residuals, buffers)
    readout = Readout(bank, buffers)
    rows = TapRows.of(readout.take(tokens), ids.tolist())

    def read_again() -> Taken:
        tap.apply(residuals, buffers)
        return readout.take(tokens)

    ways: dict[str, Callable[[], object]] = {
        "show": lambda: memory.taken(rows).watched(None),
        "read": lambda: read_again().watched(None),
        "run": lambda: residuals_of(subject, ids),
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            took[name].append(_seconds(way))
    show, read, run = (statistics.median(took[name]) for name in ways)
    others = 0 if rows.others is None else rows.others.nbytes
    size = rows.readings.nbytes + rows.sinks.nbytes + others
    return (
        Kept("readings", size // tokens, show, run),
        Kept("residuals", residuals.nbytes // tokens, read, read),
    )


def residuals_of(subject: Subject, ids: Tensor) -> Tensor:
    """The residual stream `[tokens, d_model]` at the tapped layer of a text, by one pass through the whole model."""
    found: list[Tensor] = []
    layer = subject.loaded.layers[subject.layer]
    handle = layer.register_forward_hook(lambda _module, _args, output: found.append(hidden_of(output)[0]))
    try:
        with torch.inference_mode():
            subject.loaded.model(
                input_ids=ids[None].to(subject.loaded.device), use_cache=False, logits_to_keep=1
            )
    finally:
        handle.remove()
    return found[0]


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    app()
