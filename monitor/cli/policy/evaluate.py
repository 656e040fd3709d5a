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

from monitor.cli.options import DeviceOption, DictionaryOption, FormatOption, JsonOption, ModelOption
from monitor.cli.output import writable, write_text
from monitor.cli.show.console import stderr_console, stdout_console
from monitor.errors import InputError
from monitor.lab.benign_texts import SPREAD, documents, excerpt
from monitor.lab.extra_rows import extra_rows, held_out, sources_of
from monitor.lab.pair import open_pair
from monitor.lab.running_policies import notes_on, tried
from monitor.policy.files.examples import BENIGN_FILE, read_benign
from monitor.policy.files.loader import read_folder
from monitor.policy.files.lock import LockModel
from monitor.policy.files.source import Source
from monitor.policy.fit.evaluation import BenignRate, RuleOnSource, SourceTexts, on_sources, rates, rates_of
from monitor.policy.fit.lengths import EDGES
from monitor.policy.fit.readings import TextReadings
from monitor.policy.fit.rows import ReadTexts, read_rows
from monitor.policy.fit.rule_scorers import RuleScorer

if TYPE_CHECKING:
    from monitor.lab.readings import PairReader
import dataclasses
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from monitor.policy.files.lock import Separation
from monitor.policy.fit.evaluation import UNLIKE

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
    sources: tuple[RuleOnSource, ...] = ()
    rates: tuple[BenignRate, ...] = ()
    notes: tuple[str, ...] = ()
    """What has no row and why, and which rows mean something else than the others."""


Seen = Callable[[Source, RuleScorer, Sequence[SourceTexts], Sequence[str], TextReadings], None]
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
        from monitor.cli.policy.fit import signals_of
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
            results: list[RuleOnSource] = []
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

    def trials(self, source: Source) -> list[RuleScorer]:
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
    ) -> list[RuleOnSource]:
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
        learnt = read_rows(self.reader, source.examples, ReadTexts(benign, self.reader.read(benign)), extra)
        return on_sources(ready[0], learnt, sources, requests, told, seed=0)

    def _rates(self, benign: dict[str, TextReadings]) -> list[BenignRate]:
        found: list[BenignRate] = []
        anything = {name: np.zeros(len(read), np.intp) for name, read in benign.items()}
        for source in self.policies:
            for trial in self.trials(source):
                for name, read in benign.items():
                    found += rates(trial, name, read, EDGES)
                    anything[name] |= trial.fired(read)
        for name, read in benign.items():
            found += rates_of(ANY, "", None, name, anything[name], read.lengths, EDGES)
        return found


BESIDE = ("probe", "linear_probe", "difference_of_means", "bag_of_words", "random_features")
HEADS = ("probe", "linear probe", "diff. of means", "bag of words", "random features")


def as_markdown(found: Evaluation) -> str:
    """All tables."""
    names = ", ".join(
        f"{name} `{digest.removeprefix('sha256:')[:12]}`" for name, digest in found.digests.items()
    )
    parts = [
        f"Measured on {names}.",
        "#### Cards\n\nEach policy's own examples, by detectors that never saw the example's group. AUROC against own "
        "negatives (95 % interval) and recall where 1 % of benign texts fire; *caught* is the share of positives on "
        "which the rules fire as locked; beside it AUROC / recall of the baselines.",
        cards(found.locks),
        "#### Sources\n\nHeld-out halves of the labelled sources; nothing was fitted to them. AUROC within the source "
        "(95 % interval); *caught* and *fired*: shares of its positives and negatives on which the policy fires as "
        "locked; recall where 1 % of the unseen benign requests fire; beside it AUROC / recall of baselines that "
        "learnt from the same rows as the policy.",
        sources(found.sources),
        "#### False positives on unseen benign text\n\nShare of benign texts on which a rule fires, by length in "
        "tokens (95 % interval, texts). `benign/instructions` and the held-out halves of the corpora set no threshold; "
        "`peps` and `wikitext2_heldout` are of kinds that no fit has read at all.",
        rate_table(found.rates),
        "Rates by corpus, all rules together:",
        corpus_table(found.rates),
        "\n".join(f"- {note}" for note in found.notes),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def as_record(found: Evaluation) -> str:
    """The same as JSON."""
    record = {
        "folder": found.folder,
        "digests": found.digests,
        "cards": {lock.policy: lock.card.model_dump() for lock in found.locks if lock.card is not None},
        "sources": [_plain(result) for result in found.sources],
        "notes": list(found.notes),
        "rates": [{**dataclasses.asdict(rate), "interval": rate.interval} for rate in found.rates],
    }
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"


def _plain(result: RuleOnSource) -> dict[str, object]:
    methods = {name: measure.model_dump() for name, measure in result.methods.items()}
    return {**dataclasses.asdict(dataclasses.replace(result, methods={})), "methods": methods}


def cards(locks: Sequence[LockModel]) -> str:
    """One row per fitted concept."""
    rows = []
    for lock in locks:
        if lock.card is None:
            continue
        card, mine = lock.card, lock.card.methods["policy"]
        caught = [rule.caught for rule in lock.rules.values() if rule.caught is not None]
        rows.append(
            [
                lock.policy,
                f"**{_area(mine)}**",
                f"**{mine.recall:.0%}** ({mine.recall_low:.0%}–{mine.recall_high:.0%})",
                " / ".join(f"{share:.0%}" for share in caught),
                "–" if mine.hard_auroc is None else f"{mine.hard_auroc:.2f}",
                *(_short(card.methods.get(name)) for name in BESIDE),
                card.maturity,
            ]
        )
    return table(["policy", "AUROC", "recall at 1 %", "caught", "look-alikes", *HEADS, "maturity"], rows)


def sources(results: Sequence[RuleOnSource]) -> str:
    """One row per policy and source; the rule is named where a policy has rows for several."""
    rules = {r.policy: {other.rule for other in results if other.policy == r.policy} for r in results}
    rows = [
        [
            f"{r.policy}/{r.rule}" if len(rules[r.policy]) > 1 else r.policy,
            r.source,
            f"{r.positive} / {r.negative}",
            f"**{_area(r.methods['policy'])}**" if r.negative else "–",
            f"{r.methods['policy'].recall:.0%}",
            f"{r.caught:.0%} / {'–' if r.fired is None else format(r.fired, '.1%')}",
            *(_short(r.methods.get(name), areas=bool(r.negative)) for name in BESIDE),
        ]
        for r in results
    ]
    return table(["policy", "source", "rows +/−", "AUROC", "recall at 1 %", "caught / fired", *HEADS], rows)


def rate_table(rates: Sequence[BenignRate]) -> str:
    """One row per rule, corpora taken together; a column per length."""
    lengths = sorted({(r.longer_than, r.up_to) for r in rates}, key=lambda pair: pair[0])
    columns: list[tuple[tuple[str, ...], tuple[int, int | None] | None]] = []
    columns += [(("benign/instructions",), None)]
    known = ("benign/instructions", *UNLIKE)
    fitted = tuple(sorted({r.source for r in rates} - set(known)))
    columns += [(fitted, pair) for pair in lengths if fitted]
    strange = tuple(name for name in UNLIKE if any(r.source == name for r in rates))
    if strange:
        columns.append((strange, None))
    heads = ["rule", "asked"] + [f"{_of(names, strange)} {_length(pair)}".strip() for names, pair in columns]
    rules = dict.fromkeys((r.policy, r.rule) for r in rates)
    rows = []
    for policy, rule in rules:
        mine = [r for r in rates if (r.policy, r.rule) == (policy, rule)]
        asked = mine[0].asked
        cells = [
            _pooled(r for r in mine if r.source in names and pair in (None, (r.longer_than, r.up_to)))
            for names, pair in columns
        ]
        rows.append([f"{policy}/{rule}".rstrip("/"), "" if asked is None else f"{asked:.1%}", *cells])
    return table(heads, rows)


def corpus_table(rates: Sequence[BenignRate]) -> str:
    """One row per corpus: how often any rule of the set fires."""
    together = [r for r in rates if not r.rule]
    lengths = sorted({(r.longer_than, r.up_to) for r in together}, key=lambda pair: pair[0])
    rows = [
        [
            name,
            *(
                _pooled(r for r in together if r.source == name and (r.longer_than, r.up_to) == pair)
                for pair in lengths
            ),
        ]
        for name in dict.fromkeys(r.source for r in together)
    ]
    return table(["corpus", *(_length(pair) for pair in lengths)], rows)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; empty where there are no rows."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    if not lines:
        return ""
    return "\n".join(["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads), *lines])


def _of(names: tuple[str, ...], strange: tuple[str, ...]) -> str:
    if names == strange:
        return "other corpora"
    return "instructions" if len(names) == 1 and "/" in names[0] else "held-out corpora"


def _length(pair: tuple[int, int | None] | None) -> str:
    if pair is None:
        return ""
    low, high = pair
    return f"> {low}" if high is None else f"≤ {high}" if not low else f"{low + 1}–{high}"


def _pooled(rates: Iterable[BenignRate]) -> str:
    mine = list(rates)
    if not mine:
        return "–"
    one = dataclasses.replace(mine[0], texts=sum(r.texts for r in mine), fired=sum(r.fired for r in mine))
    low, high = one.interval
    return f"{one.fired / one.texts:.1%} ({100 * low:.1f}–{100 * high:.1f}; {one.texts})"


def _area(measure: Separation) -> str:
    return f"{measure.auroc:.2f} ({measure.auroc_low:.2f}–{measure.auroc_high:.2f})"


def _short(measure: Separation | None, *, areas: bool = True) -> str:
    if measure is None:
        return "–"
    return f"{measure.auroc:.2f} / {measure.recall:.0%}" if areas else f"– / {measure.recall:.0%}"
