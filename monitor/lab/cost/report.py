"""What a measurement of cost found, as JSON and as Markdown. It holds numbers only, no text of any example."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monitor.lab.cost.advice import Advice
from monitor.lab.cost.edits import ABOUT
from monitor.lab.cost.points import Point, Share

HEADS = ("edit", "strength", "unsafe", "change", "own rule", "later probe", "perplexity", "KL")


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

    def as_json(self) -> str:
        """All numbers as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    def rows(self) -> list[tuple[str, ...]]:
        """A row of words for each point, under `HEADS`."""
        return [_cells(point) for point in self.points]

    def markdown(self, picture: Path | None) -> str:
        """A page of Markdown."""
        lines = [f"# What suppressing `{self.policy}` does and costs", "", *self.recommendation(), ""]
        if picture is not None:
            lines += [f"![effect against damage]({picture.name})", ""]
        lines += ["| " + " | ".join(HEADS) + " |", "|" + "---|" * len(HEADS)]
        lines += ["| " + " | ".join(cells) + " |" for cells in self.rows()]
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
            f"own rule and later probe: share of {texts['positives']} held-out positives on which they reach their "
            "threshold, read from the edited residual and behind it",
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
        return [head, "", *(f"- {reason}" for reason in advice.reasons)]


def _cells(point: Point) -> tuple[str, ...]:
    return (
        point.way,
        f"{point.strength:g}",
        _percent(point.unsafe),
        _points(point.change),
        "–" if point.own_share is None else f"{point.own_share:.0%}",
        "–" if point.later_share is None else f"{point.later_share:.0%}",
        f"{point.perplexity:.1f} ({point.damage:+.1%})",
        f"{point.kl:.4f}",
    )


def _percent(share: Share) -> str:
    return f"{share.value:.0%} ({share.low:.0%}–{share.high:.0%})"


def _points(share: Share) -> str:
    return f"{100 * share.value:+.0f} ({100 * share.low:+.0f} to {100 * share.high:+.0f})"
