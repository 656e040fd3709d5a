"""The results as Markdown and as plain records for JSON.

Knows tables. Does not know how anything was measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from monitor.dictionary.cards.card_file import Context
from monitor.dictionary.evaluation.clearest import FIRES, RARE_IN_CORPUS, RARE_ON_BENIGN, Clear
from monitor.dictionary.evaluation.measure import DETECTORS, Measured, SourceResult
from monitor.dictionary.evaluation.source import Skipped

_STRONG = 50
"""Percent of a feature's maximum from which a token is set in bold."""


@dataclass(frozen=True)
class Subject:
    """What was measured."""

    model: str
    dictionary: str
    layer: int
    features: int
    rows: int
    """Most rows per source."""
    limit: int
    """Most features per rule."""


def table(
    subject: Subject,
    results: Sequence[SourceResult],
    skipped: Sequence[Skipped],
    averages: Mapping[str, Sequence[str]],
) -> str:
    """AUROC per source and detector with intervals; the better of sparse rule and bag of words in bold.

    `averages` holds, by heading, the names `concept/source` of sources whose means are shown together.
    """
    head = ["source", "held-out rows (positive)", *DETECTORS]
    lines = [
        f"AUROC on held-out groups, 95 % interval from 1,000 resamples of groups. Layer {subject.layer}, "
        f"{subject.features} features; at most {subject.rows} rows per source and {subject.limit} features per "
        "sparse rule (how many it used stands in brackets). Everything is fitted and chosen on the other half "
        "of each source.",
        "",
        _row(head),
        _row(["---"] * len(head)),
        *(_row(_cells(result)) for result in results),
        "",
        *_summary(results, averages),
    ]
    lines += [f"- not measured: {item.concept}/{item.name}: {item.reason}" for item in skipped]
    return "\n".join(lines) + "\n"


def records(
    subject: Subject, results: Sequence[SourceResult], skipped: Sequence[Skipped], clear: Sequence[Clear]
) -> dict[str, Any]:
    """Everything, for JSON."""
    return {
        "format": "sae-monitor.evaluation.v1",
        "subject": asdict(subject),
        "sources": [asdict(result) for result in results],
        "not_measured": [asdict(item) for item in skipped],
        "clearest": [asdict(item) for item in clear],
    }


@dataclass(frozen=True)
class Portrait:
    """A clear feature with what is known of it."""

    clear: Clear
    label: str
    maximum: float
    density: float
    contexts: tuple[Context, ...]
    """From the corpus that the dictionary was described with."""
    examples: tuple[Context, ...]
    """From measured rows of its best source."""


def portraits(found: Iterable[Portrait]) -> str:
    """A section per feature: numbers, contexts of the corpus, examples of measured rows."""
    held = list(found)
    head = [
        "feature",
        "label",
        "concept",
        "AUROC held out",
        "fires on positive / negative / benign",
        "density",
    ]
    lines = [
        "Chosen on the half of the rows that may be learnt from: high AUROC over the sources of a concept, against "
        "their negatives and against benign requests alike, among features that fire on at most "
        f"{RARE_ON_BENIGN:.0%} of benign requests and {RARE_IN_CORPUS:.0%} of the corpus's tokens. A text counts as "
        f"fired on where a reading reaches {FIRES:g}.",
        "",
        _row(head),
        _row(["---"] * len(head)),
        *(_row(_portrait_cells(portrait)) for portrait in held),
    ]
    return "\n".join([*lines, *(line for portrait in held for line in _section(portrait))]) + "\n"


def marked(context: Context) -> str:
    """A context in one line of Markdown, tokens that fire at half the feature's maximum or more in bold."""
    parts = []
    for token, level in zip(context.tokens, context.levels, strict=True):
        text = _plain(token)
        body = text.strip()
        strong = level >= _STRONG and body
        parts.append(text.replace(body, f"**{body}**", 1) if strong else text)
    return "".join(parts).replace("****", "").strip()


def _cells(result: SourceResult) -> list[str]:
    shown = {name: _shown(result.of(name)) for name in DETECTORS}
    better = max(("sparse rule", "bag of words"), key=lambda name: result.of(name).auroc.value)
    shown[better] = f"**{shown[better]}**"
    rows = f"{result.test_rows} ({result.test_positive})"
    return [f"{result.concept}/{result.source}", rows, *shown.values()]


def _shown(measured: Measured) -> str:
    interval = measured.auroc
    count = f" ({measured.features})" if measured.detector == "sparse rule" else ""
    return f"{_two(interval.value)} [{_two(interval.low)}–{_two(interval.high)}]{count}"


def _two(value: float) -> str:
    return f"{value:.2f}".removeprefix("0") if value < 0.995 else "1.00"


def _summary(results: Sequence[SourceResult], averages: Mapping[str, Sequence[str]]) -> list[str]:
    lines = []
    for family, names in averages.items():
        members = [result for result in results if f"{result.concept}/{result.source}" in names]
        if members:
            wins = sum(r.of("sparse rule").auroc.value > r.of("bag of words").auroc.value for r in members)
            means = (
                f"{name} {sum(r.of(name).auroc.value for r in members) / len(members):.3f}"
                for name in DETECTORS
            )
            lines.append(
                f"- {family}: sparse rule above bag of words on {wins} of {len(members)} sources; "
                f"means: {', '.join(means)}"
            )
    return lines


def _portrait_cells(portrait: Portrait) -> list[str]:
    clear = portrait.clear
    fires = f"{clear.fires_positive:.0%} / {clear.fires_negative:.0%} / {clear.fires_benign:.0%}"
    held_out, density = f"{clear.held_out:.2f}", f"{portrait.density:.2%}"
    return [str(clear.feature), _plain(portrait.label), clear.concept, held_out, fires, density]


def _section(portrait: Portrait) -> list[str]:
    clear = portrait.clear
    return [
        "",
        f"### {clear.feature} · {_plain(portrait.label)} ({clear.concept})",
        "",
        f"Maximum {portrait.maximum:.3g}, active on {portrait.density:.2%} of tokens. In the corpus:",
        "",
        *(f"- {marked(context)}" for context in portrait.contexts),
        "",
        f"On held-out rows of {clear.best_source}:",
        "",
        *(f"- {marked(context)}" for context in portrait.examples),
    ]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """Text that Markdown takes as it is, on one line."""
    flat = text.replace("\n", "↵").replace("\r", "").replace("\t", " ")
    return "".join(f"\\{character}" if character in "\\`*_|<>[]#" else character for character in flat)
