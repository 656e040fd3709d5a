"""The built-in engine and vLLM side by side: `python -m monitor.bench.engines`.

Each engine runs in an environment of its own, because they want different versions of transformers. For each variant a
process is started there, which loads the model once and waits for rounds on its standard input. Rounds go from process
to process in turn, so that whatever else the machine does meets all of them; a ratio is taken within a round.

    python -m monitor.bench.engines --python builtin=.venv/bin/python --python vllm=.venv-vllm/bin/python
"""

from __future__ import annotations

import json
import os
import queue
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import IO, Annotated, Any, Protocol

import torch
import typer
from rich.console import Console
from rich.table import Table

from monitor.bench.models import MAKERS, Subject
from monitor.bench.variants import Prompts, Round, limits, watched
from monitor.model.engine.engine import MakeBatching
from monitor.model.engine.paged import Limits
from monitor.records import Clamp
from monitor.rpc.process.allocator import limit_retained_memory

BARE = "vllm bare"
SYNCHRONOUS = "vllm synchronous"
OVERLAPPING = "vllm overlapping"
WATCHED_OVERLAPPING = "vllm watched overlapping"
AS_IT_COMES = (BARE, OVERLAPPING)
VARIANTS = (
    *AS_IT_COMES,
    SYNCHRONOUS,
    "vllm watched",
    WATCHED_OVERLAPPING,
    "vllm clamped",
    "builtin watched",
)
"""`bare` is vLLM's core without anything of ours. `overlapping` is the same with async scheduling, which `bare` has on
GPUs alone. `synchronous` is the same as the monitor runs it: in one process, and without async scheduling. What the
others are is in `monitor.bench.variants`; `watched overlapping` has async scheduling."""
_BLOCK = 32
"""Tokens of a block of vLLM's cache. On CPUs vLLM's own choice is 128, which short shared prompts never fill."""
_REST = 1.5
"""Seconds between two rounds. For a second vLLM's worker waits for its next pass without sleeping, which takes a core
from the process that is measured next."""
_SILENCE = 60.0
"""Seconds in which a request must come to bare vLLM."""
_LONGEST = 256
"""Tokens of prompt and response together that a cache has room for, for each request."""

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class RoundPlan:
    """One round."""

    count: int
    prompt_tokens: int
    new_tokens: int
    shared: float
    """Share of each prompt that all prompts of the round begin with."""
    seed: int


@dataclass(frozen=True)
class Answered:
    """What a round took."""

    seconds: float
    first: list[float] = field(default_factory=list)
    """Seconds until the first token of each request."""
    between: list[float] = field(default_factory=list)
    """Seconds between two tokens of a request, of all requests."""
    passes: int = 0
    """Of vLLM in one process with us, on a CPU; 0 elsewhere."""
    beside: float = 0.0
    """Seconds of these passes in which no model ran. In them a GPU would wait."""


@app.command()
def main(
    python: Annotated[list[str], typer.Option(help="ENGINE=PYTHON, with builtin or vllm as the engine.")],
    model: Annotated[str, typer.Option(help="demo, smollm2 or random.")] = "demo",
    variant: Annotated[list[str] | None, typer.Option(help="Only these.")] = None,
    concurrency: Annotated[list[int] | None, typer.Option(help="Requests at once.")] = None,
    shared: Annotated[list[float] | None, typer.Option(help="Share of each prompt that is common.")] = None,
    caching: Annotated[bool, typer.Option(help="vLLM's prefix cache.")] = True,
    prompt_tokens: Annotated[int, typer.Option(help="Length of each prompt.")] = 128,
    new_tokens: Annotated[int, typer.Option(help="Tokens to generate per request.")] = 64,
    rounds: Annotated[int, typer.Option(help="The first is for warming up and not counted.")] = 6,
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="Write all numbers here as JSON.")] = None,
) -> None:
    """Tokens per second and times between tokens, of each variant in its environment."""
    environments = dict(part.split("=", 1) for part in python)
    names = [name for name in variant or VARIANTS if name.split()[0] in environments]
    running = max(concurrency or [1, 8, 32, 64])
    results = []
    with ExitStack() as open_children:
        options = [model, dtype, str(running), str(caching)]
        children = {
            name: open_children.enter_context(
                _child([environments[name.split()[0]], "-m", "monitor.bench.engines", name, *options], name)
            )
            for name in names
        }
        for count in concurrency or [1, 8, 32, 64]:
            for share in shared or [0.0, 0.8]:
                asked = [RoundPlan(count, prompt_tokens, new_tokens, share, seed) for seed in range(rounds)]
                answers = take_turns(children, asked)
                results.append({"asked": asdict(asked[0]), "caching": caching, "answers": answers})
                show(results[-1])
    if out is not None:
        out.write_text(json.dumps(results, indent=1))


class Child:
    """A process that runs rounds of one variant."""

    def __init__(self, into: IO[str], out: IO[str]) -> None:
        self._into, self._out = into, out

    def run(self, asked: RoundPlan) -> Answered:
        """Have it run a round. Raises RuntimeError where it has ended."""
        print(json.dumps(asdict(asked)), file=self._into, flush=True)
        for line in self._out:
            if line.startswith("{"):  # libraries may write to the same stream
                return Answered(**json.loads(line))
            sys.stderr.write(line)
        raise RuntimeError("a variant's process has ended; its error is above")


@contextmanager
def _child(command: Sequence[str], name: str) -> Iterator[Child]:
    # MKL looks before a process of ours can tell it what our server tells it.
    told = {} if name in AS_IT_COMES else {"MKL_DISABLE_FAST_MM": "1"}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | told
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Child(process.stdin, process.stdout)
    finally:
        process.stdin.close()
        process.wait()


def take_turns(
    children: dict[str, Child], asked: Sequence[RoundPlan], rest: float = _REST
) -> dict[str, list[dict[str, Any]]]:
    """Answers of every counted round by variant, in another order every round, `rest` seconds apart."""
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in children}
    names = list(children)
    for number, round_ in enumerate(asked):
        by = number % len(names)
        for name in names[by:] + names[:by]:
            time.sleep(rest)
            found = children[name].run(round_)
            if number:
                answers[name].append(asdict(found))
    return answers


def show(result: dict[str, Any]) -> None:
    """A table of one setting."""
    asked, answers = result["asked"], result["answers"]
    title = (
        f"{asked['count']} at once, {asked['shared']:.0%} of {asked['prompt_tokens']} prompt tokens shared, "
        f"prefix cache {'on' if result['caching'] else 'off'}"
    )
    times = "first token p50 / p99 ms", "between p50 / p99 ms"
    ratio, beside = "of bare (smallest … largest)", "beside the model, ms a pass"
    table = Table("variant", "tokens/s", ratio, *times, beside, title=title)
    base = answers.get(BARE) or next(iter(answers.values()))
    for name, found in answers.items():
        ratios = sorted(b["seconds"] / own["seconds"] for b, own in zip(base, found, strict=True))
        tokens = asked["count"] * asked["new_tokens"] / statistics.median(own["seconds"] for own in found)
        spread = f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} … {ratios[-1]:.3f})"
        taken = ([t for own in found for t in own[kind]] for kind in ("first", "between"))
        table.add_row(name, f"{tokens:.0f}", spread, *map(_quantiles, taken), _beside(found))
    Console(file=sys.stdout, width=132).print(table)


def _beside(found: Sequence[Mapping[str, Any]]) -> str:
    shares = [1000 * own["beside"] / own["passes"] for own in found if own["passes"]]
    return f"{statistics.median(shares):.2f}" if shares else "-"


def _quantiles(times: Sequence[float]) -> str:
    if len(times) < 2:
        return "-"
    cut = statistics.quantiles(times, n=100, method="inclusive")
    return f"{1000 * cut[49]:.1f} / {1000 * cut[98]:.1f}"


def prompts_of(asked: RoundPlan) -> Prompts:
    """The prompts of a round: random tokens, of which the first part is common to all rounds and requests."""
    common, chance = random.Random(0), random.Random(asked.seed + 1)
    beginning = [common.randrange(5, 8000) for _ in range(int(asked.shared * asked.prompt_tokens))]
    rest = asked.prompt_tokens - len(beginning)
    return [beginning + [chance.randrange(5, 8000) for _ in range(rest)] for _ in range(asked.count)]


class Clock(Protocol):
    """What counts passes, and the seconds beside the model in them."""

    passes: int

    @property
    def beside(self) -> float:
        """Seconds beside the model since the start."""

    def restart(self) -> None:
        """Count from 0."""


@dataclass(eq=False)
class RoundTimes:
    """What a variant fills in a round."""

    times: list[list[float]] = field(default_factory=list)
    """Of each request, the seconds after which something of it was released."""
    clock: Clock | None = None


def answer(run: Round, asked: RoundPlan, measured: RoundTimes) -> Answered:
    """Run a round; `measured` is what the variant fills."""
    clock = measured.clock
    if clock is not None:
        clock.restart()
    seconds = run(prompts_of(asked), asked.new_tokens)
    passes, beside = (0, 0.0) if clock is None else (clock.passes, clock.beside)
    between = [later - sooner for one in measured.times for sooner, later in pairwise(one)]
    return Answered(seconds, [one[0] for one in measured.times if one], between, passes, beside)


def serve_rounds(
    name: str, subject: Subject, running: int, caching: bool, given: IO[str], out: IO[str]
) -> None:
    """Load a variant, and run the rounds that come; ours allocate memory as our server does."""
    if name not in AS_IT_COMES:
        limit_retained_memory()
    size, measured = limits(subject, running, _LONGEST), RoundTimes()
    with _variant(name, subject, size, caching, measured) as run:
        for line in given:
            found = answer(run, RoundPlan(**json.loads(line)), measured)
            print(json.dumps(asdict(found)), file=out, flush=True)


@contextmanager
def _variant(
    name: str, subject: Subject, size: Limits, caching: bool, measured: RoundTimes
) -> Iterator[Round]:
    if name == "builtin watched":
        with watched(subject, size, times=measured.times) as run:
            yield run
        return
    with tempfile.TemporaryDirectory() as folder:
        subject.loaded.model.save_pretrained(folder)
        if name in (BARE, OVERLAPPING, SYNCHRONOUS):
            options = _core(subject, Path(folder), size, caching)
            with _bare(options, size, measured, name) as run:
                yield run
            return
        clamps = _clamps(subject) if name == "vllm clamped" else ()
        overlaps = name == WATCHED_OVERLAPPING
        # No clock there: what is queued for a GPU runs beside the host.
        clocked = None if overlaps else measured
        batcher = on_vllm(subject, Path(folder), caching, {"async_scheduling": overlaps}, clocked)
        with _overlapping(overlaps), watched(subject, size, clamps, batcher, measured.times) as run:
            yield run


def _overlapping(wanted: bool) -> AbstractContextManager[None]:
    """Lets vLLM schedule asynchronously on CPUs too."""
    from monitor.vllm.names import async_scheduling

    return async_scheduling() if wanted else nullcontext()


def _clamps(subject: Subject) -> list[Clamp]:
    alive = torch.nonzero(subject.maximum > 0).flatten()
    return [Clamp(int(f), -2.0) for f in alive[torch.linspace(0, len(alive) - 1, 12).long()]]


def _core(
    subject: Subject, folder: Path, size: Limits, caching: bool, more: Mapping[str, Any] | None = None
) -> Any:
    from monitor.vllm.core import CoreOptions
    from monitor.vllm.model import cache_bytes

    dtype = str(subject.loaded.dtype).removeprefix("torch.")
    room = cache_bytes(subject.loaded, size)
    return CoreOptions(
        folder,
        dtype,
        subject.loaded.context,
        size.batch_tokens,
        caching,
        room,
        {"block_size": _BLOCK, **(more or {})},
    )


def on_vllm(
    subject: Subject,
    folder: Path,
    caching: bool,
    more: Mapping[str, Any] | None = None,
    measured: RoundTimes | None = None,
) -> MakeBatching:
    """What makes an engine run on vLLM's core, with the weights in a folder.

    `more` are arguments of `EngineArgs`; `measured` gets the clock of the core once that has started.
    """
    from monitor.vllm.core import CoreBatcher
    from monitor.vllm.names import clock_of
    from monitor.vllm.operator import Seat

    class Clocked(CoreBatcher):
        def start(self) -> None:
            super().start()
            if measured is not None:
                measured.clock = clock_of(self._core)

    def batcher(_loaded: object, size: Limits, engine: Any) -> CoreBatcher:
        options = _core(subject, folder, size, caching, more)
        return Clocked(size, engine, options, Seat(engine._tap, subject.layer))

    return batcher


@contextmanager
def _bare(options: Any, size: Limits, measured: RoundTimes, name: str) -> Iterator[Round]:
    """VLLM's core as it comes, without its API server, as the others are measured.

    Requests come to it from another thread, as they do to the others: its first pass runs those that have come by then.
    """
    from monitor.vllm.names import bare_core, busy, clock_of, core_request, next_outputs

    synchronous, overlapping = name == SYNCHRONOUS, name == OVERLAPPING
    core = bare_core(options, size.running, synchronous=synchronous, overlapping=overlapping)
    if synchronous:
        measured.clock = clock_of(core)

    def run(prompts: Prompts, new: int) -> float:
        began = time.perf_counter()
        seen: dict[str, list[float]] = {f"{began}-{number}": [] for number in range(len(prompts))}
        came: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def send() -> None:
            for name, ids in zip(seen, prompts, strict=True):
                asked = core_request(name, ids, new, shares=True, temperature=0.7)
                came.put(core.preprocess_add_request(asked))

        threading.Thread(target=send, daemon=True).start()
        left = len(prompts)
        while left or busy(core):
            while left and not (came.empty() and busy(core)):
                core.add_request(*came.get(timeout=_SILENCE))
                left -= 1
            outputs = next_outputs(core)
            now = time.perf_counter() - began
            for of_client in outputs.values():
                for output in of_client.outputs:
                    seen[output.request_id] += [now] * bool(output.new_token_ids)
        measured.times[:] = seen.values()
        return time.perf_counter() - began

    try:
        yield run
    finally:
        core.shutdown()


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in VARIANTS:
        chosen, kind, number_type, most, cached = sys.argv[1:6]
        serve_rounds(
            chosen, MAKERS[kind]("auto", number_type), int(most), cached == "True", sys.stdin, sys.stdout
        )
    else:
        app()
