"""The report of an evaluation: tables in Markdown, and plain records for JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from monitor.dictionary.cards.card_file import Context
from monitor.dictionary.evaluation.clear_features import FIRES, RARE_IN_CORPUS, RARE_ON_BENIGN, ClearFeature
from monitor.dictionary.evaluation.comparison import DETECTORS, DetectorResult, SourceComparison
from monitor.dictionary.evaluation.source import SkippedSource

_STRONG = 50
"""A token is printed in bold from this percentage of the feature's maximum."""


@dataclass(frozen=True)
class EvaluationScope:
    """The model and dictionary that were evaluated, and the limits that applied."""

    model: str
    dictionary: str
    layer: int
    features: int
    """Number of features of the dictionary."""
    rows: int
    """Largest number of rows per source."""
    limit: int
    """Largest number of features per sparse rule."""


def table(
    subject: EvaluationScope,
    results: Sequence[SourceComparison],
    skipped: Sequence[SkippedSource],
    averages: Mapping[str, Sequence[str]],
) -> str:
    """A table of the AUROC of each source and detector with its interval, and summary lines below it.

    The better of the sparse rule and the bag of words is in bold. `averages` holds, by heading, the names
    `concept/source` of sources whose means are shown together.
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
    subject: EvaluationScope,
    results: Sequence[SourceComparison],
    skipped: Sequence[SkippedSource],
    clear: Sequence[ClearFeature],
) -> dict[str, Any]:
    """All results as a record for JSON."""
    return {
        "format": "sae-monitor.evaluation.v1",
        "subject": asdict(subject),
        "sources": [asdict(result) for result in results],
        "not_measured": [asdict(item) for item in skipped],
        "clearest": [asdict(item) for item in clear],
    }


@dataclass(frozen=True)
class FeaturePortrait:
    """A clear feature with its label, statistics, contexts and examples."""

    clear: ClearFeature
    label: str
    maximum: float
    """Its recorded maximum activation."""
    density: float
    """Share of the corpus's tokens at which it is active."""
    contexts: tuple[Context, ...]
    """From the corpus with which the dictionary was described."""
    examples: tuple[Context, ...]
    """From held-out rows of its best source."""


def portraits(found: Iterable[FeaturePortrait]) -> str:
    """A table of the features, then a section for each with its contexts and examples."""
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
    """A context in one line of Markdown. Tokens with at least half the feature's maximum are in bold."""
    parts = []
    for token, level in zip(context.tokens, context.levels, strict=True):
        text = _plain(token)
        body = text.strip()
        strong = level >= _STRONG and body
        parts.append(text.replace(body, f"**{body}**", 1) if strong else text)
    return "".join(parts).replace("****", "").strip()


def _cells(result: SourceComparison) -> list[str]:
    shown = {name: _shown(result.of(name)) for name in DETECTORS}
    better = max(("sparse rule", "bag of words"), key=lambda name: result.of(name).auroc.value)
    shown[better] = f"**{shown[better]}**"
    rows = f"{result.test_rows} ({result.test_positive})"
    return [f"{result.concept}/{result.source}", rows, *shown.values()]


def _shown(measured: DetectorResult) -> str:
    interval = measured.auroc
    count = f" ({measured.features})" if measured.detector == "sparse rule" else ""
    return f"{_two(interval.value)} [{_two(interval.low)}–{_two(interval.high)}]{count}"


def _two(value: float) -> str:
    return f"{value:.2f}".removeprefix("0") if value < 0.995 else "1.00"


def _summary(results: Sequence[SourceComparison], averages: Mapping[str, Sequence[str]]) -> list[str]:
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


def _portrait_cells(portrait: FeaturePortrait) -> list[str]:
    clear = portrait.clear
    fires = f"{clear.fires_positive:.0%} / {clear.fires_negative:.0%} / {clear.fires_benign:.0%}"
    held_out, density = f"{clear.held_out:.2f}", f"{portrait.density:.2%}"
    return [str(clear.feature), _plain(portrait.label), clear.concept, held_out, fires, density]


def _section(portrait: FeaturePortrait) -> list[str]:
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
    """The text on one line, with Markdown's special characters escaped."""
    flat = text.replace("\n", "↵").replace("\r", "").replace("\t", " ")
    return "".join(f"\\{character}" if character in "\\`*_|<>[]#" else character for character in flat)
