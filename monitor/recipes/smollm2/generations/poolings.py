"""How many requests a rule on prompts would find at a low rate of false positives, by pooling and by length.

AUROC says little of a rule that shares a budget: of benign prompts a quarter of a percent may fire it. So a probe is
learnt for each pooling, and requests are counted that score above all but so many benign prompts of their length.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monitor.lab.benign_texts import excerpt
from monitor.lab.data_folder import DataFolder
from monitor.policy.files.benign import BenignText
from monitor.policy.files.occurrences import Document, Kind, one_occurrence
from monitor.policy.files.source import Source
from monitor.policy.fit.detectors import Recipe, learn_probe
from monitor.policy.fit.pooling import RulePooling
from monitor.policy.fit.readings import FitReader, Floats, TextReadings
from monitor.policy.fit.rows import FitRows
from monitor.recipes.smollm2.generations.catalogue import DANGEROUS
from monitor.recipes.smollm2.generations.detection import SpeechMeter
from monitor.recipes.smollm2.generations.extension import taught_with, written_pooling

EDGES = (48, 128)
"""Lengths at which a range ends, in tokens; there is a last range beyond them."""
RATES = (0.0025, 0.01)
"""Shares of benign prompts that may fire."""
SIZES = ((20, 220, 250), (250, 450, 250), (600, 1500, 120))
"""Benign prompts: least and most characters of an excerpt, and how many of each kind of text are read at most."""
BEHIND = 200
"""So many requests are put behind a benign text."""
FEWEST = 20
"""A range of lengths with fewer requests is left out."""
SOURCE_ROWS = 320
BEHIND_BENIGN = "behind a benign text"


@dataclass(frozen=True)
class FoundRequests:
    """The requests of one source that one pooling finds."""

    pooling: str
    source: str
    longer_than: int
    """Length of the requests in tokens, what the chat template writes before them included."""
    requests: int
    benign: int
    found: Mapping[float, float]
    """By the share of benign prompts of that length that fire, the share of requests that do."""


class PromptSet:
    """Benign prompts of three lengths, and requests of several sources, read once for all poolings."""

    def __init__(
        self,
        reader: FitReader,
        requests: Sequence[str],
        sources: Mapping[str, Sequence[str]],
        benign: Sequence[BenignText],
    ) -> None:
        """`requests` are the test's; they are put behind benign texts, too. `sources` are other requests by name."""
        calm, longer = _prompts(benign)
        behind = [f"{text}\n\n{requests[n % len(requests)]}" for n, text in enumerate(longer[:BEHIND])]

        def read(texts: Sequence[str]) -> TextReadings:
            return reader.read([_asked(text, turns=reader.takes_turns) for text in texts])

        self._calm = read(calm)
        self._sources = {
            name: read(texts)
            for name, texts in {"the test": requests, **sources, BEHIND_BENIGN: behind}.items()
        }

    def found(self, name: str, how: RulePooling, rows: FitRows, seed: int) -> Iterator[FoundRequests]:
        """What a probe finds that learnt from all of the rows for this pooling."""
        probe = learn_probe(rows, rows.everything, Recipe((how,), 1, seed, signed=True))

        def scores(read: TextReadings) -> Floats:
            return how.score(probe.tokens(read, np.arange(len(read))))

        calm, lengths = scores(self._calm), self._calm.lengths
        for source, read in self._sources.items():
            mine = scores(read)
            for low, high in zip((0, *EDGES), (*EDGES, np.inf), strict=True):
                here = mine[(read.lengths > low) & (read.lengths <= high)]
                ranked = np.sort(calm[(lengths > low) & (lengths <= high)])[::-1]
                if len(here) >= FEWEST and len(ranked):
                    limits = {rate: ranked[int(rate * len(ranked))] for rate in RATES}
                    shares = {rate: float((here > limit).mean()) for rate, limit in limits.items()}
                    yield FoundRequests(name, source, low, len(here), len(ranked), shares)


def compared(
    meter: SpeechMeter,
    said: Path,
    data: DataFolder,
    benign: Sequence[BenignText],
    written: Sequence[str],
    seed: int,
) -> Iterator[FoundRequests]:
    """What each pooling finds of dangerous requests: learnt without the further examples, and with them.

    Args:
        meter: what the rows of a fit are read with; its policies hold the one for dangerous requests.
        said: what `generations --questions examples` wrote.
        data: labelled files, of which one half is measured on.
        benign: benign prompts that no probe learns from.
        written: poolings, as `written_pooling` reads them.
        seed: draws what is drawn.
    """
    (source,) = (one for one in meter.policies if one.model.metadata.name == DANGEROUS.name)
    asked = [question.text for question in DANGEROUS.questions]
    prompts = PromptSet(meter.reader, asked, other_requests(source, data), benign)
    for rows, which in zip(taught_with(meter, source, said), ("", ", extended"), strict=True):
        for pooling in written:
            yield from prompts.found(pooling + which, written_pooling(pooling), rows, seed)


def other_requests(source: Source, data: DataFolder) -> dict[str, list[str]]:
    """Requests of labelled sources about a policy that no fit has read, by source."""
    meta = source.model.metadata
    return {
        file.name: [row.text for row in data.held_out(file, SOURCE_ROWS) if row.label]
        for file in data.about(meta.name, meta.category)
    }


def poolings_table(results: Sequence[FoundRequests]) -> str:
    """One row for each source and range of lengths, one column for each pooling, in Markdown."""
    names = list(dict.fromkeys(one.pooling for one in results))
    rows: dict[tuple[str, int], dict[str, FoundRequests]] = {}
    for one in results:
        rows.setdefault((one.source, one.longer_than), {})[one.pooling] = one
    lines = [
        f"| {' | '.join(['requests', 'tokens', 'requests / benign', *names])} |",
        "|---" * (len(names) + 3) + "|",
    ]
    for (source, low), found in rows.items():
        some = next(iter(found.values()))
        cells = [source, _range(low), f"{some.requests} / {some.benign}"]
        cells += [" / ".join(f"{share:.0%}" for share in found[name].found.values()) for name in names]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _range(low: int) -> str:
    ends = (0, *EDGES)
    after = ends.index(low) + 1
    return f"{low + 1}–{ends[after]}" if after < len(ends) else f"> {low}"


def _prompts(benign: Sequence[BenignText]) -> tuple[list[str], list[str]]:
    """Benign prompts, and those of them that are longer than the shortest size."""
    counts: Counter[tuple[str, int]] = Counter()
    found: list[str] = []
    longer: list[str] = []
    for row in sorted(benign, key=lambda row: _digest(row)):
        size = _digest(row)[1] % len(SIZES)
        least, most, wanted = SIZES[size]
        text = row.messages[0]["content"] if row.messages else row.text
        if counts[row.kind, size] < wanted and len(text) >= least:
            counts[row.kind, size] += 1
            found.append(excerpt(text, least, most))
            longer += found[-1:] if size else []
    return found, longer


def _digest(row: BenignText) -> bytes:
    return hashlib.sha256(row.plain.encode()).digest()


def _asked(text: str, *, turns: bool) -> Document:
    return one_occurrence(text, Kind.REQUEST, turns=turns)
