"""`features effect`: what features of a prompt do to the next token, as tables or as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from monitor.cli.opened_pair import opened_pair
from monitor.cli.options import (
    DeviceOption,
    DictionaryOption,
    FormatOption,
    JsonOption,
    ModelOption,
    PairOption,
    SkipSelfTestOption,
)
from monitor.cli.output import json_line
from monitor.cli.show.console import stdout_console
from monitor.cli.show.printable import one_line

if TYPE_CHECKING:
    from monitor.lab.features import PromptEffects


def effect(
    prompt: Annotated[str, typer.Option(help="Let the model read this text.")],
    feature: Annotated[
        int | None,
        typer.Argument(
            metavar="[N]", help="Index of the feature; left out, the features that matter most are ranked."
        ),
    ] = None,
    token: Annotated[
        str | None, typer.Option(help="Explain this next token; without it, the likeliest one.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, max=100, help="Show so many rows in each table.")] = 8,
    pair_name: PairOption = None,
    model: ModelOption = None,
    dictionary: DictionaryOption = None,
    dictionary_format: FormatOption = None,
    as_json: JsonOption = False,
    device: DeviceOption = "auto",
    skip_self_test: SkipSelfTestOption = False,
) -> None:
    """Show what a feature does to the next token: with it taken away, by gradients, and directly.

    Without N, the features are ranked by attribution to the token, and the strongest are taken away one by one.
    """
    from monitor.lab.features import PromptEffects
    from monitor.lab.pair import need_feature

    pair = opened_pair(
        model, dictionary, dictionary_format, device, pair_name=pair_name, skip_self_test=skip_self_test
    )
    if feature is not None:
        need_feature(pair.dictionary, feature)
    effects = PromptEffects(pair, prompt, token)
    record = _ranking(effects, top) if feature is None else _one(effects, feature, top)
    if as_json:
        typer.echo(json_line(record))
    elif feature is None:
        _print_ranking(stdout_console(), record)
    else:
        _print_one(stdout_console(), record)


def _one(effects: PromptEffects, feature: int, top: int) -> dict[str, Any]:
    found = asdict(effects.of(feature, top))
    return {"feature": feature, "label": effects.labels.best(feature), "token": effects.token} | found


def _ranking(effects: PromptEffects, top: int) -> dict[str, Any]:
    rows = []
    for ranked in effects.ranking(top):
        numbers = {k: v for k, v in asdict(ranked.effect).items() if k not in ("text", "probability")}
        label = effects.labels.best(ranked.feature)
        rows.append(
            {"feature": ranked.feature, "label": label, "at": ranked.at, "reading": ranked.reading} | numbers
        )
    return {"token": effects.token, "probability": effects.probability, "features": rows}


def _print_one(console: Console, record: dict[str, Any]) -> None:
    console.print(Text(f"feature {record['feature']}  {one_line(record['label'])}", style="bold"))
    where = Table("position", "token", "reading", f"attribution to {record['token']!r}", box=None)
    for row in record["positions"]:
        where.add_row(
            str(row["position"]), repr(row["text"]), f"{row['reading']:.2f}", f"{row['attribution']:+.3f}"
        )
    console.print(where)
    for name, rows in (
        ("explained", [record["explained"]]),
        ("raises", record["raised"]),
        ("lowers", record["lowered"]),
    ):
        table = Table(name, "p", "p without it", "ablation", "attribution", "direct", box=None)
        for row in rows:
            table.add_row(repr(row["text"]), f"{row['probability']:.4f}", *_numbers(row))
        console.print(table)
    console.print(
        "logits against their mean; ablation is exact, attribution first-order, direct without later layers"
    )


def _print_ranking(console: Console, record: dict[str, Any]) -> None:
    console.print(f"next token {record['token']!r}, p {record['probability']:.4f}", markup=False)
    heads = ("feature", "at", "reading", "p without it", "ablation", "attribution", "direct", "label")
    table = Table(*heads, box=None)
    for row in record["features"]:
        reading = f"{row['reading']:.2f}"
        label = Text(one_line(row["label"]))
        table.add_row(str(row["feature"]), repr(row["at"]), reading, *_numbers(row), label)
    console.print(table)


def _numbers(row: dict[str, Any]) -> list[str]:
    direct = "–" if row["direct"] is None else f"{row['direct']:+.3f}"
    return [f"{row['without']:.4f}", f"{row['ablation']:+.3f}", f"{row['attribution']:+.3f}", direct]
