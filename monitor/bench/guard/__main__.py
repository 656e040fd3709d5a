"""What doors add to a stream: `python -m monitor.bench.guard`.

A recorded server writes the same words to everybody, behind what was asked. Streams go to it directly, through
`sae-monitor guard` in each mode, and to ScoreStream with the same pieces; with `--envoy` through Envoy without a filter
and with the guard, with `--litellm` through LiteLLM's proxy with a guardrail that does nothing. Every round asks all of
them in turn, each round in another order. Printed are the time to the first piece and the time between pieces, p50 and
p99, and what each adds to the bare server. Then many streams run at once. The exit code is 1 where one is lost, gets
another's text, or has a verdict that is not complete.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Annotated

import typer

from monitor.bench.guard.doors import MeasuredDoor, envoy, guard, guarded_envoy, litellm
from monitor.bench.guard.streams import Latencies, at_once, numbered, one_by_one, pushes, said
from monitor.http.guard.recorded import recorded

app = typer.Typer(add_completion=False)
MODES = ("hold", "sample", "end")
Ask = Callable[[int], Latencies]
"""Asks for so many streams, one after the other."""


@app.command()
def main(
    streams: Annotated[int, typer.Option(help="Streams of each row in each round.")] = 6,
    rounds: Annotated[int, typer.Option(help="Rounds; each asks all in turn.")] = 5,
    tokens: Annotated[int, typer.Option(help="Pieces of a stream.")] = 32,
    pause: Annotated[float, typer.Option(help="Seconds that the server takes for a piece.")] = 0.02,
    together: Annotated[int, typer.Option(help="Streams at once in the end; 0 for none.")] = 1000,
    pair: Annotated[str, typer.Option(help="Pair that watches.")] = "tiny",
    envoy_program: Annotated[str, typer.Option("--envoy", help="Envoy's executable.")] = "",
    litellm_python: Annotated[
        str, typer.Option("--litellm", help="An interpreter that has `litellm[proxy]`.")
    ] = "",
) -> None:
    """Measure what each door adds, then run many streams at once."""
    pieces = said(tokens)
    wrong = 0
    with recorded(numbered(pieces), pause=pause) as (_, behind):
        with ExitStack() as stack:
            asks = _asks(stack, behind, pieces, pause, pair, envoy_program, litellm_python)
            found = _measured(asks, rounds, streams)
        header = ("first p50", "first p99", "between p50", "between p99")
        typer.echo(f"{'milliseconds':<20} " + " ".join(f"{name:>8}{'':<9}" for name in header))
        for name, latencies in found.items():
            typer.echo(latencies.row(name, None if name == "bare" else found["bare"]))
            wrong += latencies.wrong
        for flag, given in (("--envoy", envoy_program), ("--litellm", litellm_python)):
            if not given:
                typer.echo(f"{flag.removeprefix('--')}: not measured; give {flag}")
        if together:
            with guard(behind, "hold", pair) as door:
                wrong += _many(door, together, pieces)
    sys.exit(1 if wrong else 0)


def _asks(
    stack: ExitStack,
    behind: str,
    pieces: Sequence[str],
    pause: float,
    pair: str,
    envoy_program: str,
    litellm_python: str,
) -> dict[str, Ask]:
    """Start all doors, and give for each what asks it."""
    doors = {"bare": MeasuredDoor(behind)}
    for mode in MODES:
        doors[f"guard, {mode}"] = stack.enter_context(guard(behind, mode, pair))
    if envoy_program:
        doors["Envoy"] = stack.enter_context(envoy(envoy_program, behind))
        doors["Envoy and guard"] = stack.enter_context(guarded_envoy(envoy_program, behind, pair))
    if litellm_python:
        doors["LiteLLM"] = stack.enter_context(litellm(litellm_python, behind))
    asks: dict[str, Ask] = {name: partial(_ask, door, pieces) for name, door in doors.items()}
    grpc = doors["guard, hold"].grpc
    asks["ScoreStream"] = lambda streams: asyncio.run(pushes(grpc, streams, pieces, pause))
    return asks


def _ask(door: MeasuredDoor, pieces: Sequence[str], streams: int) -> Latencies:
    return asyncio.run(one_by_one(door.url, streams, pieces, guarded=door.guarded, token=door.token))


def _measured(asks: dict[str, Ask], rounds: int, streams: int) -> dict[str, Latencies]:
    """What was measured of each, in rounds that ask all of them, each in another order."""
    found = {name: Latencies() for name in asks}
    names = list(asks)
    for number in range(rounds):
        at = number % len(names)
        for name in names[at:] + names[:at]:
            found[name].extend(asks[name](streams))
    return found


def _many(door: MeasuredDoor, together: int, pieces: Sequence[str]) -> int:
    """Run many streams at once; the number of those that were lost or mixed up."""
    begun = time.perf_counter()
    found = asyncio.run(at_once(door.url, together, pieces))
    seconds = time.perf_counter() - begun
    typer.echo(found.row(f"{together} at once"))
    rate = together * len(pieces) / seconds
    typer.echo(f"{rate:.0f} tokens a second; lost or mixed up: {found.wrong}")
    return found.wrong


if __name__ == "__main__":
    app()
