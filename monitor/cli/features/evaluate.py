"""`features evaluate`: how well features find labelled concepts, beside baselines; and the clearest features.

Knows the options, the order of work and the files that come out. Does not know how anything is fitted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from monitor.cli.features.show import card_of
from monitor.cli.options import DeviceOption, DictionaryOption, FormatOption, ModelOption
from monitor.cli.show.console import stderr_console, stdout_console
from monitor.dictionary.evaluation.clear_features import ClearFeature, SourceSummary, clearest, summarise
from monitor.dictionary.evaluation.comparison import SourceComparison, compare_detectors
from monitor.dictionary.evaluation.readings import Floats, LabelledReadings
from monitor.dictionary.evaluation.report import EvaluationScope, FeaturePortrait, portraits, records, table
from monitor.dictionary.evaluation.source import LabelledSource, SkippedSource, SourceText, make_source
from monitor.errors import InputError
from monitor.lab.labelled_sources import LabelledReader, labelled_files, read_rows
from monitor.lab.pair import need_statistics, open_labels, open_pair
from monitor.lab.processes import in_processes

BENIGN = ("benign", "instructions")
_BY_WORDING = "bbq"
"""Sources whose negatives are told by wording alone have no say in which features are clear."""


def evaluate(
    data: Annotated[Path, typer.Option(help="Folder of labelled texts: CONCEPT/SOURCE.jsonl.")],
    out: Annotated[Path, typer.Option(help="Folder for evaluation.md, evaluation.json and clearest.md.")],
    model: ModelOption = None,
    dictionary: DictionaryOption = None,
    dictionary_format: FormatOption = None,
    rows: Annotated[int, typer.Option(min=100, help="Most rows per source.")] = 1000,
    features: Annotated[int, typer.Option(min=1, help="Most features of the sparse rule.")] = 128,
    longest: Annotated[int, typer.Option(min=8, help="Most tokens read of a text.")] = 256,
    only: Annotated[list[str] | None, typer.Option(help="Concepts or sources; all without it.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Sources fitted at the same time.")] = 2,
    device: DeviceOption = "auto",
) -> None:
    """Measure features on labelled texts: best single one, sparse rule and dense rule, beside three baselines.

    The baselines are a linear probe, the difference of means and a bag of words. Rows are split by group as the
    bundled model's training was, so that what is measured was never trained on.
    """
    files = labelled_files(data, only or [])
    out.mkdir(parents=True, exist_ok=True)
    pair = open_pair(model, dictionary, device, dictionary_format)
    reader = LabelledReader(pair, longest)
    made = [_source(key, path, rows) for key, path in files.items()]
    sources, skipped = (
        [s for s in made if isinstance(s, LabelledSource)],
        [s for s in made if isinstance(s, SkippedSource)],
    )
    if not sources:
        raise InputError("no source can be measured: " + "; ".join(f"{s.name}: {s.reason}" for s in skipped))
    benign = _benign(data, reader, rows)
    summaries: list[SourceSummary] = []
    halves = _halves(sources, reader, benign, summaries)
    results = list(in_processes(partial(_measure, limit=features), halves, jobs))
    density = need_statistics(pair.dictionary).density.numpy()
    found = clearest(summaries, benign, density, count=10, most_per_concept=3) if summaries else []
    subject = EvaluationScope(
        pair.loaded.digest,
        pair.dictionary.digest,
        pair.harvester.layer,
        pair.dictionary.autoencoder.features,
        rows,
        features,
    )
    _write(out, table(subject, results, skipped), portraits(_portraits(found, sources, reader)))
    record = json.dumps(records(subject, results, skipped, found), indent=1, ensure_ascii=False)
    (out / "evaluation.json").write_text(record + "\n", "utf-8")
    stdout_console().print(table(subject, results, skipped), soft_wrap=True)


def _measure(
    given: tuple[LabelledSource, LabelledReadings, LabelledReadings], limit: int
) -> SourceComparison:
    source, train, test = given
    return compare_detectors(source.concept, source.name, train, test, limit=limit)


def _source(key: tuple[str, str], path: Path, rows: int) -> LabelledSource | SkippedSource:
    from monitor.lab.splits import normalised, split_of

    return make_source(*key, read_rows(path), split_of, normalised, rows)


def _halves(
    sources: list[LabelledSource], reader: LabelledReader, benign: Floats, summaries: list[SourceSummary]
) -> Iterator[tuple[LabelledSource, LabelledReadings, LabelledReadings]]:
    """Both halves of each source, read when they are asked for; adds to `summaries` on the way."""
    from rich.progress import Progress

    with Progress(console=stderr_console(), transient=True) as bar:
        for source in bar.track(sources, description="sources"):
            whole = reader.half(source)
            train, test = whole.select(source.train), whole.select(~source.train)
            if len(benign) and not source.name.startswith(_BY_WORDING):
                summaries.append(summarise(source.concept, source.name, train, test, benign))
            yield source, train, test


def _benign(data: Path, reader: LabelledReader, rows: int) -> Floats:
    """Max-pooled readings of benign requests; no rows where the folder has none."""
    path = labelled_files(data, []).get(BENIGN)
    if path is None:
        return np.zeros((0, reader.pair.dictionary.autoencoder.features), np.float32)
    found = read_rows(path)[:rows]
    return reader.read(found, np.arange(len(found))).maximum


def _portraits(
    found: list[ClearFeature], sources: list[LabelledSource], reader: LabelledReader
) -> Iterator[FeaturePortrait]:
    dictionary = reader.pair.dictionary
    labels, statistics = open_labels(dictionary), need_statistics(dictionary)
    by_name = {(source.concept, source.name): source for source in sources}
    for clear in found:
        source = by_name[clear.concept, clear.best_source]
        measured: list[SourceText] = [
            row for row, train in zip(source.rows, source.train, strict=True) if not train
        ]
        yield FeaturePortrait(
            clear,
            labels.best(clear.feature),
            float(statistics.maximum[clear.feature]),
            float(statistics.density[clear.feature]),
            card_of(dictionary, clear.feature).contexts[:4],
            tuple(reader.strongest(measured[row], clear.feature) for row in clear.examples),
        )


def _write(out: Path, table_text: str, portraits_text: str) -> None:
    (out / "evaluation.md").write_text(table_text, "utf-8")
    (out / "clearest.md").write_text(portraits_text, "utf-8")
