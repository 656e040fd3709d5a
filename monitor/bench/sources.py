"""How well concepts are detected in unseen sources: `python -m monitor.bench.sources --data DATA`.

A labelled source is measured twice. `within`: detectors learn from other groups of the same source, in five folds.
`across`: they learn from all other sources of the concept, and from nothing of this one. Compared are weighted
features, a probe, both combined, the difference of means, and words (TF-IDF). All of them have the same benign texts
among their negatives. AUROC is against the source's own negatives. Recall is stated where 1 % of benign requests fire
that no detector has learnt from. Intervals are of 95 %, from resampling groups.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from monitor.lab.benign_texts import benign_texts
from monitor.lab.data_folder import DataFolder, LabelledFile, open_data
from monitor.lab.pair import open_pair
from monitor.lab.policies import running_of
from monitor.lab.readings import PairReader
from monitor.policy.files.loader import read_folder
from monitor.policy.files.occurrences import Document, kind_called, one_occurrence
from monitor.policy.files.occurrences import Kind as Occurrence
from monitor.policy.files.source import Source
from monitor.policy.fit.cross_validation import folds, learnt_scores
from monitor.policy.fit.detectors import Recipe
from monitor.policy.fit.metrics import ResampledSeparation, Truth, difference, measure_all
from monitor.policy.fit.pooling import RulePooling
from monitor.policy.fit.readings import Floats, Indices, TextReadings, join_texts
from monitor.policy.fit.rows import FitRows
from monitor.policy.schema.policy import Ema
from monitor.rpc.assembly import bundled_policies

WITHIN, ACROSS = "within", "across"
METHODS = {
    "features": "features",
    "probe": "probe",
    "combined": "both",
    "difference_of_means": "diff. of means",
    "bag_of_words": "words",
}
"""What is compared, and how tables call it."""
FEATURES = 64
CHARACTERS = 600
"""Characters that are read of a text."""
POOLING = RulePooling(Ema(kind="ema", half_life=12))
"""How token scores become one number; most shipped rules pool so."""

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class ReadSource:
    """Rows of one labelled source, with their readings."""

    file: LabelledFile
    documents: Sequence[Document]
    read: TextReadings
    positive: Indices
    groups: Sequence[str]


@dataclass(frozen=True)
class Benign:
    """Benign texts with their readings."""

    documents: Sequence[Document]
    read: TextReadings


@dataclass(frozen=True)
class SourceResult:
    """How the methods do on one source."""

    concept: str
    source: str
    where: str
    """`within` or `across`."""
    texts: int
    methods: dict[str, ResampledSeparation]

    def gain(self, method: str) -> tuple[float, float, float]:
        """Recall of a method minus that of words, with the interval's ends."""
        found = difference(self.methods[method], self.methods["bag_of_words"])
        return found.recall, found.recall_low, found.recall_high


@app.command()
def main(
    data: Annotated[Path, typer.Option(help="Folder of labelled files, as `policy evaluate` reads it.")],
    manifest: Annotated[Path | None, typer.Option(help="What its files are.")] = None,
    pair: Annotated[str | None, typer.Option(help="A pair by its name.")] = None,
    model: Annotated[str | None, typer.Option(help="Model, in place of a pair.")] = None,
    dictionary: Annotated[Path | None, typer.Option(help="Its dictionary.")] = None,
    policies: Annotated[
        Path | None,
        typer.Option(help="Folder of locked policies; their locks say which detector ships for a concept."),
    ] = None,
    concept: Annotated[list[str] | None, typer.Option(help="Only this concept. Repeatable.")] = None,
    rows: Annotated[int, typer.Option(help="Rows of a source, half of each label.")] = 200,
    requests: Annotated[int, typer.Option(help="Benign requests of which 1 % fire.")] = 800,
    learnt: Annotated[int, typer.Option(help="Benign texts among the negatives.")] = 300,
    seed: Annotated[int, typer.Option(help="Draws folds and resamples.")] = 0,
    dtype: Annotated[str, typer.Option(help="Number type of the model.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="Write all numbers here as JSON.")] = None,
) -> None:
    """Measure detectors within and across labelled sources, beside words and the difference of means."""
    folder = policies or bundled_policies()
    opened = open_pair(model, dictionary, dtype=dtype, pair=pair)
    reader = PairReader(opened)
    given = open_data(data, manifest=manifest)
    turns = reader.takes_turns
    calm = [
        one_occurrence(text, Occurrence.STATEMENT, turns=turns) for text in benign_texts(folder, ()).learnt
    ]
    asked = [
        one_occurrence(text, Occurrence.REQUEST, turns=turns)
        for texts in given.requests(requests).values()
        for text in texts
    ]
    negatives, unseen = (Benign(some, reader.read(some)) for some in (calm[:learnt], asked))
    policies_read = read_folder(folder, running_of(opened))
    results = []
    for name, files in _concepts(given, concept or ()).items():
        sources = [_read(reader, given, file, rows) for file in files]
        for result in _measured(name, sources, negatives, unseen, seed):
            typer.echo(_line(result), err=True)
            results.append(result)
    typer.echo(as_tables(results, _shipped(policies_read, given)))
    if out is not None:
        out.write_text(json.dumps([_record(result) for result in results], indent=1) + "\n", "utf-8")


def _concepts(given: DataFolder, only: Sequence[str]) -> dict[str, list[LabelledFile]]:
    """The sources that have rows of both labels, by concept."""
    found: dict[str, list[LabelledFile]] = {}
    for file in given.sources:
        if (not only or file.concept in only) and len({row.label for row in given.held_out(file, 40)}) > 1:
            found.setdefault(file.concept, []).append(file)
    return found


def _read(reader: PairReader, given: DataFolder, file: LabelledFile, most: int) -> ReadSource:
    rows = given.held_out(file, most)
    documents = [
        one_occurrence(row.text[:CHARACTERS], kind_called(row.kind), turns=reader.takes_turns) for row in rows
    ]
    positive = np.asarray([bool(row.label) for row in rows], np.intp)
    return ReadSource(file, documents, reader.read(documents), positive, [row.group for row in rows])


def _measured(
    concept: str, sources: Sequence[ReadSource], negatives: Benign, unseen: Benign, seed: int
) -> Iterator[SourceResult]:
    for source in sources:
        own = _rows([source], negatives, unseen)
        yield _result(concept, source, WITHIN, own, _within(own, seed), seed)
        others = [other for other in sources if other is not source]
        if others:
            every = _rows([source, *others], negatives, unseen)
            yield _result(concept, source, ACROSS, every, _across(every, seed), seed)


def _rows(sources: Sequence[ReadSource], negatives: Benign, unseen: Benign) -> FitRows:
    """All texts in one order: the first source, unseen requests, other sources, benign negatives.

    `measured` is 1 for what is scored: the first source and the requests. `own` is 1 for labelled rows.
    """
    first, others = sources[0], sources[1:]
    parts = [first.documents, unseen.documents, *(o.documents for o in others), negatives.documents]
    reads = [first.read, unseen.read, *(o.read for o in others), negatives.read]
    counts = [len(part) for part in parts]
    zeros = [np.zeros(len(part), np.intp) for part in (unseen.documents, negatives.documents)]
    names = [*first.groups, *(f"request {i}" for i in range(counts[1]))]
    names += [group for other in others for group in other.groups]
    names += [f"benign {i}" for i in range(counts[-1])]
    total = sum(counts)
    return FitRows(
        documents=[document for part in parts for document in part],
        read=join_texts(reads),
        positive=np.concatenate([first.positive, zeros[0], *(o.positive for o in others), zeros[1]]),
        groups=np.unique(names, return_inverse=True)[1].astype(np.intp),
        measured=(np.arange(total) < counts[0] + counts[1]).astype(np.intp),
        own=np.repeat([1, 0, *(1 for _ in others), 0], counts),
        hard=np.zeros(total, np.intp),
        importance=np.ones(total),
    )


def _within(rows: FitRows, seed: int) -> dict[str, Floats]:
    """Scores `[texts]` of the measured rows, each fold by detectors of the others. Benign requests teach none."""
    teaching = np.flatnonzero((rows.own == 1) | (rows.measured == 0))
    found = {name: np.full(len(rows.documents), np.nan) for name in METHODS}
    for held in folds(rows, seed):
        scores = learnt_scores(rows, np.setdiff1d(teaching, held), held, _recipe(seed))
        for name in METHODS:
            found[name][held] = scores[name]
    return found


def _across(rows: FitRows, seed: int) -> dict[str, Floats]:
    """Scores `[texts]` of the measured rows, by detectors that learnt from everything else."""
    held = np.flatnonzero(rows.measured == 1)
    found = {name: np.full(len(rows.documents), np.nan) for name in METHODS}
    scores = learnt_scores(rows, np.flatnonzero(rows.measured == 0), held, _recipe(seed))
    for name in METHODS:
        found[name][held] = scores[name]
    return found


def _recipe(seed: int) -> Recipe:
    return Recipe((POOLING,), FEATURES, seed, signed=True)


def _result(
    concept: str, source: ReadSource, where: str, rows: FitRows, scores: Mapping[str, Floats], seed: int
) -> SourceResult:
    seen = np.flatnonzero(rows.measured == 1)
    truth = Truth(rows.positive[seen], rows.own[seen], rows.hard[seen], rows.groups[seen])
    measured = measure_all({name: values[seen] for name, values in scores.items()}, truth, seed)
    return SourceResult(concept, source.file.stem, where, len(source.documents), measured)


def _shipped(sets: Sequence[Source], given: DataFolder) -> dict[str, str]:
    """By concept, the kind of detector that the lock of its policy has."""
    found: dict[str, str] = {}
    for file in given.sources:
        for source in sets:
            about = file.speaks_of(source.model.metadata.name, source.model.metadata.category)
            if about and source.lock is not None and source.lock.detector:
                found.setdefault(file.concept, source.lock.detector)
    return found


def as_tables(results: Sequence[SourceResult], shipped: Mapping[str, str]) -> str:
    """Two tables in Markdown, and for how many sources each method beats words."""
    parts = []
    for where in (WITHIN, ACROSS):
        mine = [result for result in results if result.where == where]
        if not mine:
            continue
        head = "| source | " + " | ".join(METHODS.values()) + " | features − words | probe − words |"
        lines = [f"### {where}", "", head, "|---|" + "---|" * (len(METHODS) + 2)]
        parts += [*lines, *(_row(result, shipped) for result in mine), "", *_summary(mine, shipped), ""]
    return "\n".join(parts)


def _row(result: SourceResult, shipped: Mapping[str, str]) -> str:
    kept = shipped.get(result.concept)
    cells = []
    for name in METHODS:
        value = result.methods[name].measure
        cell = f"{value.auroc:.2f} / {value.recall:.0%} ({value.recall_low:.0%}–{value.recall_high:.0%})"
        cells.append(f"**{cell}**" if name == kept else cell)
    gains = ["{:+.0%} ({:+.0%} to {:+.0%})".format(*result.gain(name)) for name in ("features", "probe")]
    return f"| {result.concept}/{result.source} | {' | '.join([*cells, *gains])} |"


def _summary(results: Sequence[SourceResult], shipped: Mapping[str, str]) -> list[str]:
    lines = []
    for name in METHODS:
        if name != "bag_of_words":
            better, worse = _wins([result.gain(name) for result in results])
            lines.append(
                f"- {METHODS[name]}: better than words on {better} of {len(results)}, worse on {worse}."
            )
    known = [result for result in results if result.concept in shipped]
    if known:
        better, worse = _wins([result.gain(shipped[result.concept]) for result in known])
        lines.append(
            f"- what ships: better than words on {better} of {len(known)} with a policy, worse on {worse}."
        )
    return lines


def _wins(gains: Sequence[tuple[float, float, float]]) -> tuple[int, int]:
    """How many gains, with their intervals, lie above and below 0."""
    return sum(low > 0 for _, low, _ in gains), sum(high < 0 for _, _, high in gains)


def _line(result: SourceResult) -> str:
    cells = (
        f"{label} {result.methods[name].measure.auroc:.2f}/{result.methods[name].measure.recall:.2f}"
        for name, label in METHODS.items()
    )
    return f"{result.where} {result.concept}/{result.source} ({result.texts}): {', '.join(cells)}"


def _record(result: SourceResult) -> dict[str, object]:
    methods = {name: found.measure.model_dump() for name, found in result.methods.items()}
    gains = {name: result.gain(name) for name in METHODS if name != "bag_of_words"}
    return {
        "concept": result.concept,
        "source": result.source,
        "where": result.where,
        "texts": result.texts,
        "methods": methods,
        "recall_above_words": gains,
    }


if __name__ == "__main__":
    app()
