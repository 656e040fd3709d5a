"""What another number type does to readings, rules and speed: `python -m monitor.bench.dtypes`.

A pair is opened in float32 and in another type, and both read the same texts. Compared are residuals and readings token
by token, the rules of a folder of locked policies text by text (as `sae-monitor policy recheck` does), the actions of
the whole set, and tokens per second. A ratio of speeds is taken within a round, in which both types run in turns;
nothing else should run on the machine. With --bits the other pair is also quantised, by rounding its weights as the
formats Q8_0 and Q4_1 of llama.cpp do; it computes with the rounded weights, so its speed says nothing.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from monitor.errors import PolicyError
from monitor.lab.compare_sets import outcomes
from monitor.lab.pair import Pair, open_pair
from monitor.lab.policies import load_set, running_of
from monitor.lab.policy_evaluation import signals_of
from monitor.lab.readings import PairReader
from monitor.lab.recheck.policies import PolicyRecheck, Rechecker
from monitor.policy.files.occurrences import Document
from monitor.policy.fit.readings import TextReadings
from monitor.records import Phase
from monitor.rpc.assembly import bundled_policies

FLOAT32 = "float32"
BLOCK = 32
"""Weights that share a scale."""
PARTS = (0.5, 0.95, 0.99, 1.0)
"""Quantiles of a difference that are stated."""

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class ReadingChange:
    """Residuals and readings of the same tokens in two number types."""

    tokens: int
    unlike: int
    """Texts that were left out, because other tokens of them are attention sinks in the other type."""
    residual: tuple[float, ...]
    """Quantiles (`PARTS`) over tokens of the length of the residual's change, as a share of the residual's length."""
    readings: tuple[float, ...]
    """Quantiles over readings above zero in both types of the change, as a share of the reading in float32."""
    maxima: tuple[float, ...]
    """Quantiles over the same readings of the change in units of the feature's maximum."""
    active: int
    """Readings above zero in float32."""
    off: int
    """Of these, zero in the other type."""
    on: int
    """Readings above zero in the other type alone."""


@dataclass(frozen=True)
class ActionChange:
    """What the whole set of policies does with the same texts in two number types."""

    texts: int
    actions: int
    """Texts on which another action is taken."""
    rules: int
    """Texts on which other rules fire, in shadow or not."""


@dataclass(frozen=True)
class SpeedRatio:
    """Tokens per second in another number type by those in float32."""

    work: str
    tokens_per_second: float
    """In float32, in the median round."""
    ratios: tuple[float, ...]
    """Of each round."""


@app.command()
def main(
    policies: Annotated[
        Path | None, typer.Option(help="Folder of locked policies.", show_default="the bundled ones")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model. Default: the bundled one.")] = None,
    dictionary: Annotated[Path | None, typer.Option(help="Its dictionary.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only this policy. Repeatable.")] = None,
    dtype: Annotated[str, typer.Option(help="The number type to compare with float32.")] = "bfloat16",
    bits: Annotated[int, typer.Option(help="Round the weights to 8 or 4 bits first; 0 leaves them.")] = 0,
    texts: Annotated[
        int,
        typer.Option(help="Read so many texts for readings, actions and speed. Rules read all of theirs."),
    ] = 400,
    rounds: Annotated[
        int, typer.Option(help="Paired rounds of speed; one more warms up and is not counted.")
    ] = 5,
    new_tokens: Annotated[int, typer.Option(help="Generate so many tokens in each round.")] = 32,
    threads: Annotated[int, typer.Option(help="Torch threads; 0 leaves torch's choice.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "cpu",
    out: Annotated[Path | None, typer.Option(help="Write all numbers here as JSON.")] = None,
) -> None:
    """Compare float32 and another number type: readings, rules, actions and tokens per second."""
    if bits and bits not in ROUNDINGS:
        raise typer.BadParameter(f"{bits} is not among them; write 8 or 4", param_hint="--bits")
    if threads:
        torch.set_num_threads(threads)
    folder = policies or bundled_policies()
    rechecker = Rechecker(folder, only=only or ())
    pairs = [open_pair(model, dictionary, device, dtype=kind) for kind in (FLOAT32, dtype)]
    signals = signals_of(rechecker.sources)
    readers = [PairReader(pair, signals) for pair in pairs]
    chosen = sample(rechecker, texts, turns=readers[0].takes_turns)
    if bits:
        quantise(pairs[1], bits)
    read = [reader.read(chosen) for reader in readers]
    readings = compare_readings(*read)
    scores = [rechecker.scores(pair, _silent) for pair in pairs]
    rules = rechecker.compare(pairs[1], scores[1], against=scores[0]).policies
    actions = compare_actions(folder, pairs, read)
    speeds = [
        speed("read to the tapped layer", pairs, lambda pair: _read(pair, chosen), rounds),
        speed("generate, one request", pairs, lambda pair: _generate(pair, chosen[0], new_tokens), rounds),
    ]
    name = f"{dtype}, weights of {bits} bits" if bits else dtype
    show(Console(width=110), name, readings, rules, actions, speeds)
    if out is not None:
        record = {"threads": torch.get_num_threads(), "dtype": dtype, "bits": bits}
        record |= {"readings": asdict(readings)}
        record |= {"actions": None if actions is None else asdict(actions)}
        record |= {"rules": [asdict(one) for one in rules], "speed": [asdict(one) for one in speeds]}
        out.write_text(json.dumps(record, indent=1))


def quantise(pair: Pair, bits: int) -> None:
    """Round all matrices of a model in place, in blocks of 32 weights with a scale each, and with 4 bits an offset."""
    with torch.no_grad():
        for weights in pair.loaded.model.parameters():
            if weights.dim() == 2 and weights.numel() % BLOCK == 0:
                blocks = weights.float().reshape(-1, BLOCK)
                weights.copy_(ROUNDINGS[bits](blocks).reshape(weights.shape))


def _q8_0(blocks: Tensor) -> Tensor:
    scale = (blocks.abs().amax(1, keepdim=True) / 127).half().float().clamp_min(1e-12)
    return (blocks / scale).round().clamp(-127, 127) * scale


def _q4_1(blocks: Tensor) -> Tensor:
    low, high = blocks.amin(1, keepdim=True), blocks.amax(1, keepdim=True)
    scale, offset = ((high - low) / 15).half().float().clamp_min(1e-12), low.half().float()
    return ((blocks - offset) / scale).round().clamp(0, 15) * scale + offset


ROUNDINGS = {8: _q8_0, 4: _q4_1}


def sample(rechecker: Rechecker, count: int, *, turns: bool) -> list[Document]:
    """So many of the texts that policies are rechecked on, spread evenly over all of them."""
    every = (text for source in rechecker.sources for text in rechecker.texts(source, turns=turns).texts)
    everything = list({json.dumps(text): text for text in every}.values())
    places = np.linspace(0, len(everything) - 1, min(count, len(everything))).astype(int)
    return [everything[place] for place in places]


def compare_readings(one: TextReadings, other: TextReadings) -> ReadingChange:
    """Compare what two pairs read in the same texts; `one` in float32."""
    assert one.positions is not None
    assert other.positions is not None
    alike = [i for i in range(len(one)) if np.array_equal(_places(one, i), _places(other, i))]
    a, b = one.take(np.asarray(alike, np.intp)), other.take(np.asarray(alike, np.intp))
    length = np.linalg.norm(a.residuals.astype(np.float64), axis=1)
    moved = np.linalg.norm(a.residuals.astype(np.float64) - b.residuals, axis=1) / np.maximum(length, 1e-30)
    active, also = a.tokens.matrix > 0, b.tokens.matrix > 0
    both = active.multiply(also).tocsr()
    then = np.asarray(a.tokens.matrix[both.nonzero()]).ravel()
    now = np.asarray(b.tokens.matrix[both.nonzero()]).ravel()
    change = np.abs(now - then)
    return ReadingChange(
        tokens=len(length),
        unlike=len(one) - len(alike),
        residual=_quantiles(moved),
        readings=_quantiles(change / np.maximum(then, 1e-30)),
        maxima=_quantiles(change),
        active=int(active.sum()),
        off=int(active.sum() - both.sum()),
        on=int(also.sum() - both.sum()),
    )


def _places(read: TextReadings, text: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    assert read.positions is not None
    starts = read.tokens.starts
    return read.positions[starts[text] : starts[text + 1]]


def _quantiles(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, ...]:
    return tuple(float(np.quantile(values, part)) for part in PARTS) if len(values) else (0.0,) * len(PARTS)


def compare_actions(folder: Path, pairs: Sequence[Pair], read: Sequence[TextReadings]) -> ActionChange | None:
    """What the set of policies does with the same texts; None where its locks are of another pair."""
    try:
        sets = [load_set(folder, running_of(pair)) for pair in pairs]
    except PolicyError:
        return None
    then, now = (outcomes(policies, one, Phase.PROMPT) for policies, one in zip(sets, read, strict=True))
    return ActionChange(
        texts=len(then),
        actions=sum(a.action != b.action for a, b in zip(then, now, strict=True)),
        rules=sum(a.fired != b.fired for a, b in zip(then, now, strict=True)),
    )


def speed(work: str, pairs: Sequence[Pair], run: Callable[[Pair], int], rounds: int) -> SpeedRatio:
    """Tokens per second of the second pair by those of the first; `run` does the work and gives its tokens."""
    seconds: list[list[float]] = [[], []]
    tokens = 0
    for number in range(rounds + 1):
        # Another order every round, so that neither always runs after the other.
        for which in (0, 1) if number % 2 else (1, 0):
            began = time.perf_counter()
            tokens = run(pairs[which])
            if number:
                seconds[which].append(time.perf_counter() - began)
    ratios = tuple(then / now for then, now in zip(*seconds, strict=True))
    return SpeedRatio(work, tokens / statistics.median(seconds[0]), ratios)


def _read(pair: Pair, texts: Sequence[Document]) -> int:
    """Run the texts up to the tapped layer; gives the number of their tokens."""
    total = 0
    for _, ids, lengths in PairReader(pair).batches(texts):
        pair.residuals(ids, lengths)
        total += sum(lengths)
    return total


def _generate(pair: Pair, text: Document, new: int) -> int:
    """Generate exactly so many tokens behind a text, the likeliest each."""
    ids = torch.tensor([PairReader(pair).ids(text)], device=pair.loaded.device)
    options = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
    with pair.loaded.reading([ids.shape[1] + new]), torch.no_grad():
        pair.loaded.model.generate(ids, attention_mask=torch.ones_like(ids), **options)
    return new


def show(
    console: Console,
    dtype: str,
    readings: ReadingChange,
    rules: Sequence[PolicyRecheck],
    actions: ActionChange | None,
    speeds: Sequence[SpeedRatio],
) -> None:
    """Three tables: readings, rules, speed."""
    quantiles = Table("change", *(f"{part:.0%}" for part in PARTS), title=f"{dtype} beside {FLOAT32}")
    for name, row in (
        ("residual, of its length", readings.residual),
        ("readings, of the reading", readings.readings),
        ("readings, of the maximum", readings.maxima),
    ):
        quantiles.add_row(name, *(f"{value:.2%}" for value in row))
    console.print(quantiles)
    console.print(
        f"{readings.tokens:,} tokens, {readings.active:,} readings above zero: {readings.off:,} go off, "
        f"{readings.on:,} come on; {readings.unlike} texts with other attention sinks are left out"
    )
    table = Table("rule", "verdict", "benign", "caught", "AUROC", "thresholds move", "texts that flip")
    for one in rules:
        for rule in one.rules:
            tests = (rule.check(name) for name in ("false_positives", "caught", "auroc", "score_shift"))
            cells = (
                "-" if test is None or test.change is None else f"{test.change.value:+.2%}" for test in tests
            )
            table.add_row(f"{one.policy}/{rule.name}", rule.verdict, *cells, str(rule.flips))
    console.print(table)
    if actions is not None:
        console.print(
            f"{actions.texts} texts: another action on {actions.actions}, other rules on {actions.rules}"
        )
    for ratio in speeds:
        ranked = sorted(ratio.ratios)
        console.print(
            f"{ratio.work}: {statistics.median(ranked):.2f} times as many tokens per second ({ranked[0]:.2f} … "
            f"{ranked[-1]:.2f}); {FLOAT32} {ratio.tokens_per_second:,.0f}"
        )


def _silent(_: str) -> None:
    """Tell nobody."""


if __name__ == "__main__":
    app()
