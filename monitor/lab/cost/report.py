"""What a measurement of cost found, as JSON and as Markdown. It holds numbers only, no text of any example."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monitor.lab.cost.advice import Advice
from monitor.lab.cost.edits import ABOUT, NOTHING, OWN, RIVALS
from monitor.lab.cost.equal_kl import LOST, EqualKl, summary
from monitor.lab.cost.points import Point, Share

HEADS = (
    "edit",
    "strength",
    "unsafe",
    "change",
    "own rule fires",
    "held-out probe",
    "positives: own rule",
    "positives: later probe",
    "minimal pairs",
    "perplexity",
    "KL",
)
EQUAL_HEADS = (
    "target",
    "KL",
    "beside",
    "at strength (KL)",
    "unsafe, less the rival's",
    "own rule fires",
    "held-out probe",
    "minimal pairs",
    "minimal pairs lost",
    "better",
)
OVERVIEW_HEADS = (
    "policy",
    "target",
    "unsafe",
    "own rule fires",
    "held-out probe",
    "KL",
    "perplexity",
    "minimal pairs",
    *(f"unsafe, less {name} at equal KL" for name in RIVALS),
    "better than both",
)


@dataclass(frozen=True)
class CostReport:
    """Everything that one measurement found."""

    policy: str
    model: str
    dictionary: str
    points: tuple[Point, ...]
    advice: Advice
    written: float
    """The target that the policy has now."""
    texts: dict[str, Any]
    """Numbers of texts of each kind, where they come from, and how good the classifier of behaviour is."""
    equal_kl: tuple[EqualKl, ...] = ()
    """The policy's clamps beside dense directions at the same divergence."""

    def better_at(self, target: float) -> bool:
        """Whether the clamps beat every rival that was measured at equal KL."""
        found = [one for one in self.equal_kl if one.target == target]
        return bool(found) and all(one.better for one in found)

    def as_json(self) -> str:
        """All numbers as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    def rows(self) -> list[tuple[str, ...]]:
        """A row of words for each point, under `HEADS`."""
        return [_cells(point) for point in self.points]

    def equal_rows(self) -> list[tuple[str, ...]]:
        """A row of words for each comparison at equal KL, under `EQUAL_HEADS`."""
        return [_compared(one) for one in self.equal_kl]

    def markdown(self, picture: Path | None) -> str:
        """A page of Markdown."""
        lines = [f"# What suppressing `{self.policy}` does and costs", "", *self.recommendation(), ""]
        if picture is not None:
            lines += [f"![effect against damage]({picture.name})", ""]
        lines += _table(HEADS, self.rows())
        if self.equal_kl:
            lines += ["", "At equal KL, in points with 95 % intervals:", ""]
            lines += _table(EQUAL_HEADS, self.equal_rows())
        lines += ["", "What the edits are:", ""]
        lines += [
            f"- {name}: {ABOUT[name]}" for name in dict.fromkeys(p.way for p in self.points) if name in ABOUT
        ]
        lines += ["", "What was measured:", "", *(f"- {line}" for line in self.notes()), ""]
        return "\n".join(lines)

    def notes(self) -> list[str]:
        """How to read the numbers."""
        texts = self.texts
        return [
            f"unsafe: share of {texts['prompts']} continuations of {texts['new']} tokens that the judge calls unsafe, "
            "with its 95 % interval; change: against no edit, same prompts and same luck (bootstrap)",
            f"the judge: words and pairs of words, AUROC {texts['judge_auroc']:.2f} on groups that it had not seen, "
            f"calls {texts['judge_false']:.0%} of such negatives unsafe; it and the prompts come from {texts['note']}",
            "own rule fires, held-out probe: share of those continuations that they find when the unedited model reads "
            "them; the probe learnt from the same texts as the judge, AUROC "
            f"{texts['probe_auroc']:.2f} on groups that it had not seen, its threshold where 5 % of such fire",
            f"positives: share of {texts['positives']} held-out positives on which they reach their threshold, read "
            "from the edited residual and behind it",
            _pairs_note(texts["minimal_pairs"]),
            "at equal KL: every rival is measured again at the strength that diverges as much as the clamps (within "
            "5 %), on the same prompts and with the same luck; below 0 the clamps do more. better: they lower the "
            "unsafe share, by more than the rival and more than chance, and lose at most "
            f"{100 * LOST:g} point of the minimal pairs",
            f"perplexity and KL: on {texts['benign']} benign texts, with the edit on every token of every text; while "
            "serving, clamps that wait for a detection cost this only where one fired",
            f"model {self.model[:19]}…, dictionary {self.dictionary[:19]}…",
        ]

    def recommendation(self) -> list[str]:
        """What to write into the policy, and why, as lines of Markdown."""
        advice = self.advice
        if advice.target is None:
            head = f"**Recommended: none.** The policy has `target: {self.written:g}`."
        else:
            drop = ", error_term: drop" if advice.drop else ""
            head = f"**Recommended: `target: {advice.target:g}{drop}`.** The policy has `target: {self.written:g}`."
        return [head, "", *(f"- {reason}" for reason in (*advice.reasons, summary(self.equal_kl)))]


def overview(reports: Sequence[CostReport]) -> list[tuple[str, ...]]:
    """A row of words for each policy and target, under `OVERVIEW_HEADS`."""
    return [
        _overview(report, point)
        for report in reports
        for point in report.points
        if point.way in (NOTHING, OWN)
    ]


def overview_page(reports: Sequence[CostReport]) -> str:
    """The table of all policies as a page of Markdown."""
    lines = ["# What suppression does and costs", "", *_table(OVERVIEW_HEADS, overview(reports)), ""]
    won = [report.policy for report in reports if any(report.better_at(p.strength) for p in report.points)]
    lines += [
        f"Clamps that beat both dense directions at equal KL: {', '.join(won) or 'of no policy'} "
        f"({len(won)} of {len(reports)}). Each policy's own page says how it was measured.",
        "",
        "What was measured:",
        "",
        *(f"- {line}" for line in reports[0].notes()[2:]),
    ]
    return "\n".join([*lines, ""])


def _overview(report: CostReport, point: Point) -> tuple[str, ...]:
    beside = {one.rival: one for one in report.equal_kl if one.target == point.strength and point.way == OWN}
    gaps = [_points(beside[name].unsafe) if name in beside else "–" for name in RIVALS]
    own = point.way == OWN
    return (
        report.policy if not own else "",
        f"{point.strength:.3g}" if own else "none",
        _percent(point.unsafe),
        _perhaps(point.fired, _percent),
        _perhaps(point.probed, _percent),
        f"{point.kl:.4f}",
        f"{point.perplexity:.1f} ({point.damage:+.1%})",
        "–" if point.right is None else f"{point.right.value:.1%} ({_perhaps(point.right_change, _tenths)})",
        *gaps,
        ("yes" if report.better_at(point.strength) else "no") if own and beside else "–",
    )


def _cells(point: Point) -> tuple[str, ...]:
    return (
        point.way,
        f"{point.strength:.3g}",
        _percent(point.unsafe),
        _points(point.change),
        _perhaps(point.fired, _percent),
        _perhaps(point.probed, _percent),
        "–" if point.own_share is None else f"{point.own_share:.0%}",
        "–" if point.later_share is None else f"{point.later_share:.0%}",
        "–" if point.right is None else f"{point.right.value:.1%} ({_perhaps(point.right_change, _tenths)})",
        f"{point.perplexity:.1f} ({point.damage:+.1%})",
        f"{point.kl:.4f}",
    )


def _compared(one: EqualKl) -> tuple[str, ...]:
    return (
        f"{one.target:g}",
        f"{one.kl:.4f}",
        one.rival,
        f"{one.strength:.3g} ({one.rival_kl:.4f}{'' if one.matched else ', not equal'})",
        _points(one.unsafe),
        _perhaps(one.fired, _points),
        _perhaps(one.probed, _points),
        _perhaps(one.right, _tenths),
        _perhaps(one.lost, _tenths),
        "yes" if one.better else "no",
    )


def _table(heads: Sequence[str], rows: Sequence[tuple[str, ...]]) -> list[str]:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return lines + ["| " + " | ".join(cells) + " |" for cells in rows]


def _pairs_note(pairs: int) -> str:
    if not pairs:
        return "minimal pairs: not measured; name a file of them with --minimal-pairs"
    return (
        f"minimal pairs: share of {pairs} pairs of sentences of which the edited model finds the grammatical one "
        "likelier, and its change in points; an edit may miss pairs that no edit misses, and the other way round"
    )


def _perhaps(share: Share | None, words: Callable[[Share], str]) -> str:
    return "–" if share is None else words(share)


def _tenths(share: Share) -> str:
    return f"{100 * share.value:+.1f}, {100 * share.low:+.1f} to {100 * share.high:+.1f}"


def _percent(share: Share) -> str:
    return f"{share.value:.0%} ({share.low:.0%}–{share.high:.0%})"


def _points(share: Share) -> str:
    return f"{100 * share.value:+.0f} ({100 * share.low:+.0f} to {100 * share.high:+.0f})"
