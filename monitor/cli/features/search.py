"""`features search`: the features that fire on given texts together, as a table or as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from monitor.dictionary.explore.search import SearchHit


def search(
    texts: Annotated[list[str], typer.Argument(help="One or more texts, each in quotes.", metavar="TEXT…")],
    pair_name: PairOption = None,
    model: ModelOption = None,
    dictionary: DictionaryOption = None,
    dictionary_format: FormatOption = None,
    limit: Annotated[int, typer.Option("-k", "--limit", min=1, help="Show at most so many features.")] = 20,
    device: DeviceOption = "auto",
    skip_self_test: SkipSelfTestOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find the features that fire on all of these texts together but rarely otherwise."""
    from monitor.lab.features import search_texts
    from monitor.lab.pair import open_labels

    pair = opened_pair(
        model, dictionary, dictionary_format, device, pair_name=pair_name, skip_self_test=skip_self_test
    )
    found = search_texts(pair, texts, limit)
    labels = open_labels(pair.dictionary)
    rows = [
        FeatureTableRow(
            one.hit.feature,
            _numbers(one.hit, len(texts)),
            labels.best(one.hit.feature),
            {"fires most on": _quoted(one.peaks)},
        )
        for one in found
    ]
    if as_json:
        records = [row.record() | {"peaks": list(one.peaks)} for row, one in zip(rows, found, strict=True)]
        typer.echo(json_line({"texts": len(texts), "features": records}))
    elif rows:
        stdout_console().print(feature_table(rows))
    else:
        stdout_console().print("no feature that has statistics fires on these texts")


def _numbers(hit: SearchHit, texts: int) -> dict[str, Any]:
    return {
        "score": hit.score,
        "fired": f"{hit.fired}/{texts}",
        "reading": hit.reading,
        "density": hit.density,
    }


def _quoted(words: Sequence[str | None]) -> str:
    return " · ".join("–" if word is None else f"“{word}”" for word in words)
