"""`features search`: what fires on these texts together, and rarely otherwise.

Knows options and output. Does not know how hits are ranked.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from monitor.cli.features.table import Row, feature_table
from monitor.cli.options import DeviceOption, DictionaryOption, FormatOption, JsonOption, ModelOption
from monitor.cli.show.console import stdout_console
from monitor.dictionary.explore.search import SearchHit
from monitor.dictionary.explore.search import search as find
from monitor.dictionary.explore.text_pooling import pool
from monitor.errors import InputError
from monitor.lab.pair import Pair, need_statistics, open_labels, open_pair


def search(
    texts: Annotated[list[str], typer.Argument(help="One or more texts.", metavar="TEXT…")],
    model: ModelOption = None,
    dictionary: DictionaryOption = None,
    dictionary_format: FormatOption = None,
    limit: Annotated[int, typer.Option("-k", "--limit", min=1, help="How many features.")] = 20,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Find the features that fire on all of these texts together but rarely otherwise."""
    if not all(text.strip() for text in texts):
        raise InputError("a text is empty; give texts with at least one word")
    pair = open_pair(model, dictionary, device, dictionary_format)
    statistics = need_statistics(pair.dictionary)
    ids = pair.all_ids(texts, "search")
    pooled = pool(ids, pair.residuals, pair.dictionary.autoencoder, bos=pair.bos)
    hits = find(pooled, statistics, limit=limit)
    labels = open_labels(pair.dictionary)
    peaks = [_peaks(pair, hit, ids) for hit in hits]
    rows = [
        Row(
            hit.feature,
            _numbers(hit, len(texts)),
            labels.best(hit.feature),
            {"fires most on": _quoted(words)},
        )
        for hit, words in zip(hits, peaks, strict=True)
    ]
    if as_json:
        records = [row.record() | {"peaks": words} for row, words in zip(rows, peaks, strict=True)]
        typer.echo(json.dumps({"texts": len(texts), "features": records}, ensure_ascii=False))
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


def _peaks(pair: Pair, hit: SearchHit, ids: list[list[int]]) -> list[str | None]:
    """Per text the token on which the feature fired most; None where it did not."""
    return [
        pair.speller.pieces(text)[peak] if peak else None for peak, text in zip(hit.peaks, ids, strict=True)
    ]


def _quoted(words: list[str | None]) -> str:
    return " · ".join("–" if word is None else f"“{word}”" for word in words)
