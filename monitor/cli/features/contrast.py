"""`features contrast`: the features that tell one set of texts from another, as a table or as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from monitor.cli.features.table import FeatureTableRow, feature_table
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
from monitor.cli.show.progress import work_of
from monitor.dictionary.cards.labels import Labels
from monitor.dictionary.cards.statistics import FeatureStatistics
from monitor.dictionary.explore.contrast import FeatureContrast, TextPooling
from monitor.errors import InputError
from monitor.lab.features import contrast_texts
from monitor.lab.pair import open_labels
from monitor.lab.texts import read_texts


def contrast(
    positive: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Texts of one side: .txt (one a line), .jsonl or .csv (`text`)."),
    ] = None,
    negative: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Texts of the other side, in the same forms.")
    ] = None,
    labelled: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Both sides in one .jsonl or .csv file of `text` and `label` (1 or 0)."
        ),
    ] = None,
    pool: Annotated[
        TextPooling,
        typer.Option(help="Make one number of a text's tokens by their highest or their mean reading."),
    ] = TextPooling.MAX,
    pair_name: PairOption = None,
    model: ModelOption = None,
    dictionary: DictionaryOption = None,
    dictionary_format: FormatOption = None,
    limit: Annotated[int, typer.Option("-k", "--limit", min=1, help="Show at most so many features.")] = 20,
    both_ways: Annotated[
        bool, typer.Option("--both-ways", help="Rank features that mark the negatives, too.")
    ] = False,
    device: DeviceOption = "auto",
    skip_self_test: SkipSelfTestOption = False,
    as_json: JsonOption = False,
) -> None:
    """Rank features by how well they separate positive from negative texts: AUROC with its 95 % interval.

    The interval is that of each feature on its own: the first of thousands looks better than it is, so confirm it
    on other texts.
    """
    texts, labels = _sides(positive, negative, labelled)
    pair = opened_pair(
        model, dictionary, dictionary_format, device, pair_name=pair_name, skip_self_test=skip_self_test
    )
    with work_of("reading", len(texts), "texts") as advance:
        found = contrast_texts(pair, texts, labels, pool=pool, both_ways=both_ways, progress=advance)[:limit]
    named = open_labels(pair.dictionary)
    rows = [_row(item, named, pair.dictionary.statistics) for item in found]
    sizes = {"positive": sum(labels), "negative": len(labels) - sum(labels), "pool": pool.value}
    if as_json:
        typer.echo(json_line(sizes | {"features": [row.record() for row in rows]}))
        return
    console = stdout_console()
    console.print(
        "{positive} positive, {negative} negative texts, {pool}-pooled".format(**sizes), style="dim"
    )
    console.print(feature_table(rows))


def _row(item: FeatureContrast, labels: Labels, statistics: FeatureStatistics | None) -> FeatureTableRow:
    numbers = {
        "auroc": round(item.auroc, 4),
        "low": round(item.low, 4),
        "high": round(item.high, 4),
        "fires +": round(item.fires_positive, 3),
        "fires −": round(item.fires_negative, 3),
        "density": float(statistics.density[item.feature]) if statistics else None,
    }
    return FeatureTableRow(item.feature, numbers, labels.best(item.feature))


def _sides(
    positive: Path | None, negative: Path | None, labelled: Path | None
) -> tuple[list[str], list[bool]]:
    """All texts with their side; InputError where the options do not say which is which."""
    if labelled is not None and positive is None and negative is None:
        rows = read_texts(labelled)
        if any(row.label is None for row in rows):
            raise InputError(f"{labelled.name} has rows without `label`; write 1 or 0 on each")
        pairs = [(row.text, bool(row.label)) for row in rows]
    elif positive is not None and negative is not None and labelled is None:
        # A labelled file gives only its own side.
        pairs = [(row.text, True) for row in read_texts(positive) if row.label is not False]
        pairs += [(row.text, False) for row in read_texts(negative) if row.label is not True]
    else:
        raise InputError("give --positive and --negative, or --labelled alone")
    return [text for text, _ in pairs], [label for _, label in pairs]
