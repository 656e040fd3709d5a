"""Fuzzing from the command line: `python -m tests.fuzz --cases 1000000 --workers 2`.

Every target gets its share of the cases, each in a process of its own. Exits 1 where a case raised what it must not,
hung or killed its process, or where memory grew. `--atheris` lets coverage guide one target instead.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated

import structlog
import typer

from tests.fuzz.driver import GROWTH, Outcome, case
from tests.fuzz.targets import SHARES, TARGETS

app = typer.Typer(add_completion=False)


@app.command()
def main(
    target: Annotated[
        list[str] | None, typer.Argument(help=f"Of {', '.join(TARGETS)}; all where absent.")
    ] = None,
    cases: Annotated[int, typer.Option(help="In total.")] = 100_000,
    workers: Annotated[int, typer.Option(help="Processes.")] = 2,
    seed: Annotated[int, typer.Option(help="Other cases.")] = 0,
    only: Annotated[int | None, typer.Option(help="Repeat one case of one target, and show it.")] = None,
    atheris: Annotated[
        bool, typer.Option(help="Let coverage guide one target; endless without --seconds.")
    ] = False,
    seconds: Annotated[int, typer.Option(help="With --atheris: how long.")] = 0,
) -> None:
    """Try broken input on everything that reads input."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    chosen = target or list(TARGETS)
    unknown = [name for name in chosen if name not in TARGETS]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is no target; there are {', '.join(TARGETS)}")
    if only is not None:
        repeat(chosen[0], only, seed)
    elif atheris:
        from tests.fuzz.guided import guided

        guided(TARGETS[chosen[0]](), seconds)
    else:
        sys.exit(0 if run(chosen, cases, workers, seed) else 1)


def repeat(name: str, number: int, seed: int) -> None:
    """One case, with its input printed before it runs."""
    target = TARGETS[name]()
    with target.opened():
        data = case(target, list(target.corpus()), number, seed)
        print(repr(data))  # noqa: T201
        print(target.run(data))  # noqa: T201


def run(chosen: list[str], cases: int, workers: int, seed: int) -> bool:
    """All targets; True where nothing was found."""
    total = sum(SHARES[name] for name in chosen)
    began, outcomes = time.perf_counter(), []
    parts = [(name, max(1, cases * SHARES[name] // total)) for name in chosen]
    with ThreadPoolExecutor(workers) as pool:
        for done in as_completed([pool.submit(apart, name, count, seed) for name, count in parts]):
            if (found := done.result()) is not None:
                outcomes.append(found)
                show(found)
    count = sum(found.cases for found in outcomes)
    print(f"{count} cases of {len(outcomes)} targets in {time.perf_counter() - began:.0f} s")  # noqa: T201
    lost = len(outcomes) < len(chosen)
    return not lost and not any(found.bugs or found.growth > GROWTH for found in outcomes)


def apart(name: str, cases: int, seed: int) -> Outcome | None:
    """One target in a process of its own; None where that died or hung, which it says itself."""
    with tempfile.NamedTemporaryFile() as file:
        command = [sys.executable, "-m", "tests.fuzz.apart", name, str(cases), str(seed), file.name]
        # gRPC tells of every broken frame otherwise.
        quiet = {**os.environ, "GRPC_VERBOSITY": "NONE"}
        code = subprocess.run(command, check=False, env=quiet).returncode
        if code:
            print(f"LOST {name}: its process ended with {code}", flush=True)  # noqa: T201
            return None
        found: Outcome = pickle.loads(Path(file.name).read_bytes())
        return found


def show(found: Outcome) -> None:
    """A line, and every bug."""
    slowest = f"slowest {found.slowest[0] * 1000:.0f} ms (case {found.slowest[1]})"
    rate = f"{found.cases / max(found.seconds, 1e-9):.0f}/s"
    growth = f"memory {found.growth / 2**20:+.1f} MiB in the second half"
    words = json.dumps(dict(found.words.most_common()))
    print(f"{found.target:10} {found.cases:8} cases {rate:>8}  {slowest}  {growth}  {words}", flush=True)  # noqa: T201
    if found.growth > GROWTH:
        print(f"LEAK {found.target}", flush=True)  # noqa: T201
    for place, story in found.bugs.items():
        print(f"BUG {found.target}: {place}\n{story}", flush=True)  # noqa: T201


if __name__ == "__main__":
    app()
