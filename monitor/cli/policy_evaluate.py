"""`sae-monitor policy evaluate`: fitted policies on labelled sources and on benign texts that no fit has seen.

Knows files, the order of work and which half of the data may be measured on. Does not know how anything is scored.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from monitor.cli.console import stderr_console, stdout_console
from monitor.cli.options import DeviceOption, DictionaryOption, FormatOption, JsonOption, ModelOption
from monitor.cli.policy_file import writable, write_text
from monitor.errors import InputError
from monitor.lab.benign_texts import SPREAD, documents, excerpt
from monitor.lab.extra_rows import extra_rows, held_out, sources_of
from monitor.lab.pair import open_pair
from monitor.lab.running_policies import notes_on, tried
from monitor.policy.files.examples import BENIGN_FILE, read_benign
from monitor.policy.files.loader import read_folder
from monitor.policy.files.lock import LockModel
from monitor.policy.files.source import Source
from monitor.policy.fit.evaluate import Rate, SourceResult, SourceTexts, on_sources, rates, rates_of
from monitor.policy.fit.lengths import EDGES
from monitor.policy.fit.lock_rule import Tried
from monitor.policy.fit.readings import TextReadings
from monitor.policy.fit.rows import ReadTexts, assemble

if TYPE_CHECKING:
    from monitor.lab.readings import PairReader

REQUESTS = ("benign", "instructions")
ANY = "any rule"
NOT_BENIGN = "hh_harmless"
"""A corpus whose requests are harmful themselves."""

DataOption = Annotated[
    Path, typer.Option("--data", help="Folder with labelled/CONCEPT/SOURCE.jsonl and corpus/*.jsonl.xz.")
]
RowsOption = Annotated[int, typer.Option(min=50, help="Most rows per source, half of each label.")]
TextsOption = Annotated[int, typer.Option(min=50, help="Benign texts per corpus.")]


@dataclass(frozen=True)
class Evaluation:
    """What was measured."""

    folder: str
    digests: dict[str, str]
    """Of model, dictionary and policy set."""
    locks: tuple[LockModel, ...]
    sources: tuple[SourceResult, ...] = ()
    rates: tuple[Rate, ...] = ()
    notes: tuple[str, ...] = ()
    """What has no row and why, and which rows mean something else than the others."""


Seen = Callable[[Source, Tried, Sequence[SourceTexts], Sequence[str], TextReadings], None]
"""Policy, its first rule, its sources, benign requests and their readings."""


def evaluate(
    policies: Annotated[Path, typer.Argument(help="Folder of fitted policies.")],
    data: DataOption,
    model: ModelOption = None,
    dictionary: DictionaryOption = None,
    dictionary_format: FormatOption = None,
    rows: RowsOption = 400,
    texts: TextsOption = 400,
    as_json: JsonOption = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File instead of standard output.")
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Measure every policy on the held-out half of labelled sources, and its false positives on unseen benign text.

    Prints Markdown: all cards, each policy on each source of its category beside the baselines, and how the
    fitted rate of false positives holds by length.
    """
    from monitor.cli.policy_evaluate_text import as_markdown, as_record

    writable(output)
    found = Evaluator(policies, data, (model, dictionary, device, dictionary_format)).run(rows, texts)
    text = as_record(found) if as_json else as_markdown(found)
    if output is not None:
        write_text(output, text)
        stderr_console().print(f"{output} written", soft_wrap=True)
    else:
        stdout_console().print(text, soft_wrap=True, end="")


class Evaluator:
    """A policy folder, a data folder and a pair, read as far as measuring needs them."""

    def __init__(
        self, policies: Path, data: Path, named: tuple[str | None, Path | None, str, str | None]
    ) -> None:
        """`named`: model, dictionary, device and format, as `open_pair` takes them."""
        from monitor.cli.policy_fit import signals_of
        from monitor.lab.readings import PairReader
        from monitor.lab.running_policies import bound_elsewhere, load_set, running_of

        self.folder, self.data = policies, data
        self.labelled = data / "labelled" if (data / "labelled").is_dir() else data
        everything = read_folder(policies)
        self.reader: PairReader = PairReader(open_pair(*named), signals_of(everything))
        running = running_of(self.reader)
        self.set = load_set(policies, running)
        bound = {source.model.metadata.name: bound_elsewhere(source, running) for source in everything}
        self.policies = [source for source in everything if not bound[source.model.metadata.name]]
        self.notes = [
            f"{name}: {where}; not measured on this model" for name, where in bound.items() if where
        ]

    def run(self, rows: int, texts: int, seen: Seen | None = None) -> Evaluation:
        """Everything; prints what it is at. `seen` is shown the texts of every policy while they are in memory."""
        console = stderr_console()
        with console.status("reading benign texts") as status:
            told, requests = self.requests(4 * rows)
            corpora = self.corpora(texts)
            results: list[SourceResult] = []
            for source in self.policies:
                status.update(f"measuring {source.model.metadata.name}")
                results += self._on_sources(source, rows, (told, requests), seen)
            measured = self._rates({"/".join(REQUESTS): requests, **corpora})
        return replace(self.cards(), sources=tuple(results), rates=tuple(measured))

    def cards(self) -> Evaluation:
        """What the locks say, without measuring anything."""
        pair = self.reader.pair
        digests = {
            "model": pair.loaded.digest,
            "dictionary": pair.dictionary.digest,
            "policies": self.set.digest,
        }
        return Evaluation(
            str(self.folder),
            digests,
            tuple(s.lock for s in self.policies if s.lock is not None),
            notes=(*self.notes, *(note for source in self.policies for note in notes_on(source, self.set))),
        )

    def locked(self) -> list[Source]:
        """Policies that were fitted to examples."""
        return [s for s in self.policies if s.lock is not None and s.model.concept is not None]

    def requests(self, most: int) -> tuple[list[str], TextReadings]:
        """Benign requests that neither model nor fit has seen."""
        path = self.labelled / REQUESTS[0] / f"{REQUESTS[1]}.jsonl"
        if not path.exists():
            raise InputError(f"no {path}; false positives are measured on its texts")
        texts = [row.text for row in itertools.islice(held_out(path, most, whole=True), most)]
        return texts, self.reader.read(texts)

    def corpora(self, most: int) -> dict[str, TextReadings]:
        """By corpus, excerpts of the half that no fit reads; empty where the folder has no corpora."""
        found = {}
        paths = sorted((self.data / "corpus").glob("*.jsonl.xz"))
        for path in (path for path in paths if not path.name.startswith(NOT_BENIGN)):
            texts = [excerpt(t, *SPREAD) for t in itertools.islice(documents([path], held_out=True), most)]
            found[path.name.removesuffix(".jsonl.xz")] = self.reader.read(texts)
        return found

    def trials(self, source: Source) -> list[Tried]:
        """The rules of a policy, ready to score, in the order of the file."""
        return tried(source, self.set)

    def source_texts(self, source: Source, rows: int) -> list[SourceTexts]:
        """Held-out rows of the labelled sources that speak of a policy."""
        meta = source.model.metadata
        found = []
        for path in sources_of(self.labelled, meta.name, meta.category):
            kept = list(held_out(path, rows))
            if len(kept) >= 20:
                texts = [row.text for row in kept]
                positive = np.asarray([row.positive for row in kept], np.intp)
                name = f"{path.parent.name}/{path.stem}"
                found.append(
                    SourceTexts(name, texts, self.reader.read(texts), positive, [r.group for r in kept])
                )
        return found

    def _on_sources(
        self,
        source: Source,
        rows: int,
        benign_requests: tuple[Sequence[str], TextReadings],
        seen: Seen | None,
    ) -> list[SourceResult]:
        sources = self.source_texts(source, rows)
        ready = self.trials(source)
        told, requests = benign_requests
        if ready and seen is not None:
            seen(source, ready[0], sources, told, requests)
        if not sources or not ready:
            return []
        if source.model.concept is None:
            return [r for one in ready for r in on_sources(one, None, sources, requests, told, seed=0)]
        meta = source.model.metadata
        benign = list(read_benign(self.folder / BENIGN_FILE)) if (self.folder / BENIGN_FILE).exists() else []
        extra = extra_rows(self.labelled, meta.name, meta.category)
        learnt = assemble(self.reader, source.examples, ReadTexts(benign, self.reader.read(benign)), extra)
        return on_sources(ready[0], learnt, sources, requests, told, seed=0)

    def _rates(self, benign: dict[str, TextReadings]) -> list[Rate]:
        found: list[Rate] = []
        anything = {name: np.zeros(len(read), np.intp) for name, read in benign.items()}
        for source in self.policies:
            for trial in self.trials(source):
                for name, read in benign.items():
                    found += rates(trial, name, read, EDGES)
                    anything[name] |= trial.fired(read)
        for name, read in benign.items():
            found += rates_of(ANY, "", None, name, anything[name], read.lengths, EDGES)
        return found
