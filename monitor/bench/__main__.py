"""Paired throughput and memory of the watched engine: `python -m monitor.bench`.

Every round runs all variants one after the other on the same prompts; a ratio is taken within a round, and the
median over rounds is reported with the smallest and largest. Nothing else should run on the machine.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import psutil
import torch
import typer
from rich.console import Console
from rich.table import Table

from monitor.bench.models import MAKERS, Subject
from monitor.bench.variants import Prompts, limits, variants

USUAL = ("watched", "clamped", "full hook")
"""Variants that are measured beside the bare engine unless others are named."""

app = typer.Typer(add_completion=False)


@app.command()
def main(
    model: Annotated[list[str] | None, typer.Option(help="random, demo or smollm2. Repeatable.")] = None,
    concurrency: Annotated[list[int] | None, typer.Option(help="Requests at once.")] = None,
    prompt_tokens: Annotated[int, typer.Option(help="Length of each prompt.")] = 64,
    new_tokens: Annotated[int, typer.Option(help="Tokens to generate per request.")] = 64,
    rounds: Annotated[
        int, typer.Option(help="Paired rounds; the first is for warming up and not counted.")
    ] = 6,
    threads: Annotated[int, typer.Option(help="Torch threads; 0 leaves torch's choice.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    variant: Annotated[
        list[str] | None, typer.Option(help="Only these besides bare: watched, clamped, in turns, full hook.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write all numbers here as JSON.")] = None,
) -> None:
    """Tokens per second at temperature 0.7: bare, watched with eleven policies and a decision log, watched and clamped,
    full encode-decode hook.

    `in turns` is watched too, with one request in a pass, as models run that continuous batching cannot.
    """
    if threads:
        torch.set_num_threads(threads)
    results = []
    for name in model or ["random", "demo"]:
        if name not in MAKERS:
            raise typer.BadParameter(f"{name!r} is unknown; write {', '.join(MAKERS)}", param_hint="--model")
        subject = MAKERS[name](device, dtype)
        for count in concurrency or [1, 8, 32]:
            results.append(measure(subject, count, prompt_tokens, new_tokens, rounds, variant or USUAL))
            show(results[-1])
    if out is not None:
        out.write_text(json.dumps(results, indent=1))


def measure(
    subject: Subject,
    count: int,
    prompt_tokens: int,
    new_tokens: int,
    rounds: int,
    only: Sequence[str] = USUAL,
) -> dict[str, object]:
    """Seconds of every variant in every counted round, and the memory that each adds to the process."""
    size = limits(subject, max(count, 1), prompt_tokens + new_tokens + 4)
    ways = {name: way for name, way in variants(subject, size).items() if name in ("bare", *only)}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    memory: dict[str, int] = {}
    for number in range(rounds):
        prompts = _prompts(count, prompt_tokens, seed=number)
        # Another order every round, so that no variant always runs after the same one.
        for name in _rotated(list(ways), number):
            with ways[name]() as run:
                run(prompts, min(new_tokens, 4))
                taken = run(prompts, new_tokens)
                memory[name] = psutil.Process().memory_info().rss
            if number:
                seconds[name].append(taken)
    return {
        "model": subject.name,
        "dtype": str(subject.loaded.dtype),
        "device": str(subject.loaded.device),
        "threads": torch.get_num_threads(),
        "concurrency": count,
        "new_tokens": new_tokens,
        "seconds": seconds,
        "rss_bytes": memory,
    }


def show(result: dict[str, object]) -> None:
    """A table of one setting."""
    seconds, memory = result["seconds"], result["rss_bytes"]
    assert isinstance(seconds, dict)
    assert isinstance(memory, dict)
    title = (
        f"{result['model']}, {result['dtype']} on {result['device']} ({result['threads']} threads), "
        f"{result['concurrency']} at once"
    )
    table = Table("variant", "tokens/s", "of bare (smallest … largest)", "resident MB", title=title)
    tokens = int(str(result["concurrency"])) * int(str(result["new_tokens"]))
    for name, times in seconds.items():
        ratios = sorted(base / own for base, own in zip(seconds["bare"], times, strict=True))
        spread = f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} … {ratios[-1]:.3f})"
        table.add_row(name, f"{tokens / statistics.median(times):.0f}", spread, f"{memory[name] / 2**20:.0f}")
    Console(file=sys.stdout, width=110).print(table)


def _prompts(count: int, length: int, seed: int) -> Prompts:
    chance = random.Random(seed)
    return [[chance.randrange(5, 8000) for _ in range(length)] for _ in range(count)]


def _rotated(names: list[str], by: int) -> list[str]:
    by %= len(names)
    return names[by:] + names[:by]


if __name__ == "__main__":
    app()
