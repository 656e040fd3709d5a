"""Features measured on labelled texts beside a linear probe, a difference of means and a bag of words."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from multiprocessing import get_context
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from monitor.dictionary.cards.card_file import Context
from monitor.dictionary.evaluation.clear_features import ClearFeature, SourceSummary, clearest, summarise
from monitor.dictionary.evaluation.comparison import DETECTORS, SourceComparison, compare_detectors
from monitor.dictionary.evaluation.readings import Floats, LabelledReadings
from monitor.dictionary.evaluation.report import EvaluationScope, FeaturePortrait, portraits, records, table
from monitor.dictionary.evaluation.source import LabelledSource, SkippedSource, SourceText, make_source
from monitor.dictionary.explore.text_pooling import pool
from monitor.errors import InputError
from monitor.lab.data_folder import DataFolder, LabelledFile
from monitor.lab.pair import Pair, feature_card, need_statistics, open_labels
from monitor.lab.splits import Split, normalised

CLEAREST, PER_CONCEPT = 10, 3
"""Features that are portrayed, and how many of them may be of one concept."""

Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclass(frozen=True, repr=False)
class FeatureEvaluation:
    """What was measured. `print` shows it as Markdown; intervals are of 95 %, from resampling groups."""

    subject: EvaluationScope
    sources: tuple[SourceComparison, ...]
    """All detectors on each labelled source, fitted on one side of its split and measured on the other."""
    skipped: tuple[SkippedSource, ...] = ()
    """Sources that could not be measured, and why."""
    portraits: tuple[FeaturePortrait, ...] = ()
    """The clearest features, with where they fire; none where the folder has no benign requests."""
    averages: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Headings, each with the sources whose means are shown together."""
    notes: tuple[str, ...] = ()
    """Which files were not used, and why."""
    detectors: tuple[str, ...] = DETECTORS
    """The names along the second axis of `auroc`."""

    @cached_property
    def auroc(self) -> NDArray[np.float64]:
        """`[sources, detectors, 3]`: AUROC on measured rows, the low and the high end of its interval."""
        found = [
            [(m.value, m.low, m.high) for m in (source.of(name).auroc for name in self.detectors)]
            for source in self.sources
        ]
        return np.asarray(found, np.float64).reshape(-1, len(self.detectors), 3)

    def portrayed(self) -> str:
        """The clearest features as Markdown, each with contexts and examples."""
        return portraits(self.portraits)

    def as_json(self) -> str:
        """Everything as JSON."""
        clear = [portrait.clear for portrait in self.portraits]
        record = records(self.subject, self.sources, self.skipped, clear)
        return json.dumps(record | {"notes": list(self.notes)}, indent=1, ensure_ascii=False) + "\n"

    def __str__(self) -> str:
        """One table as Markdown."""
        notes = "".join(f"- {note}\n" for note in self.notes)
        return table(self.subject, self.sources, self.skipped, dict(self.averages)) + notes

    def __repr__(self) -> str:
        """One line for each source."""
        head = f"FeatureEvaluation({len(self.sources)} sources, {len(self.skipped)} skipped)"
        lines = [
            f"  {source.concept}/{source.source}: "
            + ", ".join(f"{name} {area:.2f}" for name, area in zip(self.detectors, areas, strict=True))
            for source, areas in zip(self.sources, self.auroc[:, :, 0], strict=True)
        ]
        return "\n".join([head, *lines])


def evaluate_features(
    pair: Pair,
    data: DataFolder,
    *,
    only: Sequence[str] = (),
    rows: int = 1000,
    features: int = 128,
    longest: int = 256,
    jobs: int = 1,
    progress: Callable[[Sequence[LabelledSource]], Iterable[LabelledSource]] = iter,
) -> FeatureEvaluation:
    """Measure how well features find the concepts of labelled texts.

    Args:
        pair: From `open_pair`.
        data: From `open_data`. Detectors are fitted on its training share, half where none was given.
        only: Names of sources, or of the folders in which they lie; all where it is empty.
        rows: Most rows of each source.
        features: Most features of the sparse rule.
        longest: Most tokens that are read of a text.
        jobs: Processes that fit detectors while this one reads the next source.
        progress: Is given the sources and gives them back one by one, for a bar.

    Raises:
        InputError: A name of `only` is unknown, or no source can be measured.
    """
    reader = LabelledReader(pair, longest)
    files = _chosen(data, only)
    made = [_source(file, data.halved, rows) for file in files]
    sources, skipped = (
        [s for s in made if isinstance(s, LabelledSource)],
        [s for s in made if isinstance(s, SkippedSource)],
    )
    if not sources:
        raise InputError("no source can be measured: " + "; ".join(f"{s.name}: {s.reason}" for s in skipped))
    ranking = {(file.concept, file.stem) for file in files if file.ranks_features}
    benign = _benign(data, reader, rows)
    summaries: list[SourceSummary] = []
    halves = _halves(progress(sources), reader, benign, ranking, summaries)
    results = list(in_processes(partial(_measure, limit=features), halves, jobs))
    density = need_statistics(pair.dictionary).density.numpy()
    found = (
        clearest(summaries, benign, density, count=CLEAREST, most_per_concept=PER_CONCEPT)
        if summaries
        else []
    )
    subject = EvaluationScope(
        pair.loaded.digest,
        pair.dictionary.digest,
        pair.harvester.layer,
        pair.dictionary.autoencoder.features,
        rows,
        features,
    )
    return FeatureEvaluation(
        subject,
        tuple(results),
        tuple(skipped),
        tuple(_portraits(found, sources, reader)),
        tuple(data.averages.items()),
        data.notes,
    )


def _chosen(data: DataFolder, only: Sequence[str]) -> list[LabelledFile]:
    files = sorted((*data.sources, *data.benign), key=lambda file: file.path)
    known = {name for file in files for name in (file.name, file.concept, file.stem)}
    unknown = [name for name in only if name not in known]
    if unknown:
        raise InputError(
            f"no concept or source {unknown[0]!r}; there are: {', '.join(file.name for file in files)}"
        )
    return [f for f in files if not only or not {f.name, f.concept, f.stem}.isdisjoint(only)]


def _source(file: LabelledFile, split: Split, rows: int) -> LabelledSource | SkippedSource:
    return make_source(file.concept, file.stem, _rows(file), split.side, normalised, rows)


def _rows(file: LabelledFile) -> tuple[SourceText, ...]:
    """Its rows; where others have a group, a row without one is a group of its own."""
    grouped = any(row.group for row in file.rows)
    return tuple(
        SourceText(
            row.text, bool(row.label), row.kind, row.group or (normalised(row.text) if grouped else "")
        )
        for row in file.rows
    )


def _measure(
    given: tuple[LabelledSource, LabelledReadings, LabelledReadings], limit: int
) -> SourceComparison:
    source, train, test = given
    return compare_detectors(source.concept, source.name, train, test, limit=limit)


def _halves(
    sources: Iterable[LabelledSource],
    reader: LabelledReader,
    benign: Floats,
    ranking: set[tuple[str, str]],
    summaries: list[SourceSummary],
) -> Iterator[tuple[LabelledSource, LabelledReadings, LabelledReadings]]:
    """Both sides of each source, read when they are asked for; adds to `summaries` on the way."""
    for source in sources:
        whole = reader.half(source)
        train, test = whole.select(source.train), whole.select(~source.train)
        if len(benign) and (source.concept, source.name) in ranking:
            summaries.append(summarise(source.concept, source.name, train, test, benign))
        yield source, train, test


def _benign(data: DataFolder, reader: LabelledReader, rows: int) -> Floats:
    """Max-pooled readings of benign requests; no rows where the folder has none."""
    found = tuple(row for file in data.benign for row in _rows(file)[: -(-rows // len(data.benign))])
    if not found:
        return np.zeros((0, reader.pair.dictionary.autoencoder.features), np.float32)
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
            feature_card(dictionary, clear.feature).contexts[:4],
            tuple(reader.strongest(measured[row], clear.feature) for row in clear.examples),
        )


class LabelledReader:
    """Labelled texts as a pair reads them, pooled over their judged parts."""

    def __init__(self, pair: Pair, longest: int) -> None:
        self.pair = pair
        self._longest = min(longest, pair.loaded.context)
        maximum = need_statistics(pair.dictionary).maximum
        self._unit = torch.where(maximum > 0, 1 / maximum, 0.0)
        self._maximum = maximum

    def half(self, source: LabelledSource) -> LabelledReadings:
        """All rows of a source, both sides; cut with `source.train`."""
        return self.read(source.rows, source.units)

    def read(self, rows: tuple[SourceText, ...], units: np.ndarray) -> LabelledReadings:
        """Rows with pooled readings over their judged parts."""
        tokens = [self.tokens(row) for row in rows]
        pooled = pool(
            [ids for ids, _ in tokens],
            self.pair.residuals,
            self.pair.dictionary.autoencoder,
            limit=self.pair.norm_limit,
            starts=[start for _, start in tokens],
        )
        return LabelledReadings(
            texts=tuple(row.text for row in rows),
            replies=tuple(row.text[row.reply_start :] for row in rows),
            labels=np.array([row.label for row in rows], bool),
            units=units,
            maximum=(pooled.maximum * self._unit).numpy(),
            mean=(pooled.mean * self._unit).numpy(),
            residual=pooled.residual.numpy(),
        )

    def tokens(self, row: SourceText) -> tuple[list[int], int]:
        """Token ids of a row, and the first position that counts.

        Too long a text loses its end; a response loses its beginning instead, as its end is what is judged.
        """
        ids, offsets = self.pair.loaded.text.placed(row.text)
        begin = row.reply_start
        start = next((i for i, (_, end) in enumerate(offsets) if end > begin), len(ids) - 1) if begin else 1
        over = len(ids) - self._longest
        if over <= 0:
            return ids, start
        if not begin:
            return ids[: self._longest], start
        return ids[:1] + ids[over + 1 :], max(1, start - over)

    def strongest(self, row: SourceText, feature: int, *, before: int = 16, after: int = 7) -> Context:
        """The place in a row where a feature fires most, with its surroundings."""
        ids, start = self.tokens(row)
        x = self.pair.residuals(torch.tensor([ids]))[0]
        activation = self.pair.dictionary.autoencoder.encode(x)[:, feature].float()
        activation = activation.masked_fill(self.pair.sinks(x), 0.0).cpu()
        peak = start + int(activation[start:].argmax())
        window = range(max(1, peak - before), min(len(ids), peak + after + 1))
        percent = (100 * activation / max(float(self._maximum[feature]), 1e-9)).round().int()
        return Context(
            peak=float(activation[peak]),
            at=peak - window.start,
            tokens=tuple(self.pair.speller.pieces([ids[i] for i in window])),
            levels=tuple(int(percent[i]) for i in window),
        )


def in_processes(work: Callable[[Given], Made], given: Iterable[Given], jobs: int) -> Iterator[Made]:
    """`work` of each of `given`, in order, by `jobs` processes of one thread each.

    At most `jobs` + 1 pieces are held at a time. `given` is read in this thread, and its errors are raised here.
    """
    pending: deque[Future[Made]] = deque()
    # Spawned, not forked: a fork would copy the locks of torch's threads.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        for piece in given:
            while len(pending) > jobs:
                yield pending.popleft().result()
            pending.append(pool.submit(work, piece))
        while pending:
            yield pending.popleft().result()


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
