"""The flag `--compare`: parse its value, make its requests, and show their answers in columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from monitor.cli.clamps import parse_clamp
from monitor.cli.show.printable import printable
from monitor.cli.show.strength import left
from monitor.cli.show.words import finish
from monitor.v1 import monitor_pb2 as pb

SYNTAX = "FEATURE=VALUE,VALUE,…[@active|@everywhere]"
MOST = 8


@dataclass(frozen=True, slots=True)
class Compare:
    """One feature at several values."""

    clamps: tuple[pb.Clamp, ...]

    def requests(self, base: pb.Generation) -> Iterator[pb.Generation]:
        """The generation without this clamp, then once for each value."""
        for clamp in (None, *self.clamps):
            request = pb.Generation()
            request.CopyFrom(base)
            if clamp is not None:
                request.clamps.append(clamp)
            yield request


def parse_compare(text: str) -> Compare:
    """Parse a value such as `12=-2,0,5@everywhere`. Raises `typer.BadParameter`, which says what is wrong with it."""
    body, at, where = text.partition("@")
    feature, equals, values = body.partition("=")
    if not equals or not values.strip():
        raise typer.BadParameter(f"{text!r} is not of the form {SYNTAX}, for example 1234=-2,0,5")
    listed = [value.strip() for value in values.split(",")]
    if len(listed) > MOST:
        raise typer.BadParameter(f"{text!r} has {len(listed)} values; write at most {MOST}")
    if len(set(listed)) != len(listed):
        raise typer.BadParameter(f"{text!r} has a value twice; write each once")
    return Compare(tuple(parse_clamp(f"{feature}={value}{at}{where}") for value in listed))


def columns(compare: Compare, answers: Sequence[pb.GenerateResponse], width: int) -> RenderableType:
    """The answers side by side, or below each other where `width` is too small: text, readings and verdict."""
    heads = ["as it is", *(f"at {clamp.target:g}" for clamp in compare.clamps)]
    feature = compare.clamps[0].feature
    title = Text(f"feature {feature}, in units of its maximum", style="bold")
    if width >= 26 * len(heads):
        table = Table(*heads, box=None, padding=(0, 2, 1, 0), title=title, title_justify="left")
        table.add_row(*(Text(printable(answer.text)) for answer in answers))
        for row in zip(*(_facts(answer, feature) for answer in answers), strict=True):
            table.add_row(*(Text(cell, style="dim") for cell in row))
        return table
    blocks: list[RenderableType] = [title]
    for head, answer in zip(heads, answers, strict=True):
        facts = ", ".join(_facts(answer, feature))
        blocks += [Text(head, style="bold"), Text(printable(answer.text)), Text(facts, style="dim"), Text()]
    return Group(*blocks)


def _facts(answer: pb.GenerateResponse, feature: int) -> list[str]:
    own = [r for token in answer.tokens for r in token.readings if r.feature == feature]
    edited = sum(r.HasField("value_after_clamp") for r in own)
    highest = max(map(left, own), default=0.0)
    fired = (
        ", ".join(dict.fromkeys(printable(d.policy) for d in answer.verdict.detections)) or "no rule fired"
    )
    return [f"reads up to {highest:.2f}, {edited} tokens edited", fired, finish(answer.finish_reason)]
