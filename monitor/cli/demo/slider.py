"""One feature turned up step by step, through a server: found by contrast of readings, judged by what is written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from monitor.cli.show.comparison import edited
from monitor.cli.show.printable import printable
from monitor.v1 import monitor_pb2 as pb

if TYPE_CHECKING:
    from monitor.lab.demonstrations.demonstration import Demonstration

STRONGEST = 64
"""Features that are asked for at each token; a dictionary has about half as many active."""


@dataclass(frozen=True, slots=True)
class DemoSlider:
    """What is turned up, and how far."""

    demonstration: str
    """Name of the demonstration whose texts find the feature and whose judgement is used."""
    question: str
    """What the model is asked; no prompt that chooses the feature."""
    targets: tuple[float, ...] = (0.5, 1.0, 2.0)
    """In units of the feature's maximum."""
    texts: int = 8
    """Texts of each side that are read to find the feature."""
    tried: int = 4
    """Features that are tried at the last target."""
    max_new_tokens: int = 24
    must_show: bool = True
    """Whether it is expected that the answers show it, as on the bundled pair."""

    def about(self) -> Demonstration:
        """The demonstration."""
        from monitor.lab.demonstrations.catalogue import demonstration

        return demonstration(self.demonstration)


@dataclass(frozen=True)
class SliderAnswers:
    """The feature that was found, and the answers without it and at every target."""

    plan: DemoSlider
    feature: int
    answers: tuple[pb.GenerateResponse, ...]
    """Without a clamp, then at each target."""

    @property
    def shown(self) -> tuple[bool, ...]:
        """For each answer whether it shows what the feature is about."""
        judge = self.plan.about().judgement
        return tuple(judge.holds(answer.text) for answer in self.answers)

    @property
    def edited(self) -> tuple[int, ...]:
        """For each answer the number of tokens that were edited."""
        return tuple(edited(answer) for answer in self.answers)


def asked(question: str) -> list[dict[str, str]]:
    """A conversation that a user's question begins."""
    return [{"role": "user", "content": question}]


def highest_readings(answer: pb.InspectResponse) -> dict[int, float]:
    """The highest reading of every feature in a text, its first token left out."""
    found: dict[int, float] = defaultdict(float)
    for token in answer.tokens:
        if token.position > 0:
            for reading in token.features:
                found[reading.feature] = max(found[reading.feature], reading.value)
    return dict(found)


def telling_features(
    about: Sequence[dict[int, float]], other: Sequence[dict[int, float]], most: int
) -> list[int]:
    """Features that fire on more of the texts of one side than of the other; ties go to the stronger readings."""
    return sorted(
        {feature for text in about for feature in text},
        key=lambda f: (_share(about, f) - _share(other, f), _mean(about, f) - _mean(other, f), -f),
        reverse=True,
    )[:most]


def slider_view(found: SliderAnswers) -> RenderableType:
    """The answers below each other, each with whether it shows what the feature is about."""
    about = found.plan.about()
    texts = 2 * found.plan.texts
    head = f"  feature {found.feature}, found by {texts} texts; ✓ where the answer {about.judgement.says}"
    rows: list[RenderableType] = [Text(head, "dim"), Text(f"  {found.plan.question}", "bold")]
    names = ("as it is", *(f"at {target:g}" for target in found.plan.targets))
    for name, answer, shown, count in zip(names, found.answers, found.shown, found.edited, strict=True):
        mark = ("✓", "green") if shown else ("·", "dim")
        facts = (f"  ({count} tokens edited)", "dim")
        rows.append(Text.assemble("  ", mark, f" {name:<9} ", printable(answer.text.strip()), facts))
    return Group(*rows)


def _share(texts: Iterable[dict[int, float]], feature: int) -> float:
    values = [text.get(feature, 0.0) > 0 for text in texts]
    return sum(values) / max(1, len(values))


def _mean(texts: Iterable[dict[int, float]], feature: int) -> float:
    values = [text.get(feature, 0.0) for text in texts]
    return sum(values) / max(1, len(values))
