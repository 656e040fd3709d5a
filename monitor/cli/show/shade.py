"""Tokens of a text with backgrounds as strong as their numbers, or with marks where there are no colours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from rich.text import Text

from monitor.cli.show.printable import printable
from monitor.cli.show.strength import TokenMeasure
from monitor.v1 import monitor_pb2 as pb

STYLES = (
    "#111111 on #ffe9b0",
    "#111111 on #ffcc70",
    "#111111 on #ff9f45",
    "#111111 on #f0683c",
    "bold #ffffff on #b3132b",
)
"""The style of each level of a scale. Both colours are set, so that it is readable on dark and light terminals."""

EVIDENCE = "bold underline"


@dataclass(frozen=True, slots=True)
class Painter:
    """Turns tokens into styled text."""

    measure: TokenMeasure
    colour: bool
    """Shade backgrounds; otherwise strong tokens are put in brackets with their number."""
    evidence: frozenset[int] = field(default_factory=frozenset)
    """Positions of the tokens that are evidence of a detection."""

    def with_evidence(self, detections: Iterable[pb.Detection]) -> Painter:
        """A painter that also marks the tokens that are evidence of these detections."""
        return replace(self, evidence=frozenset(e.position for d in detections for e in d.evidence))

    def tokens(self, tokens: Sequence[pb.ScoredToken]) -> Text:
        """All tokens in order; the model's own text is set off by a bar where it begins."""
        line = Text()
        for before, token in zip([None, *tokens], tokens, strict=False):
            if before is not None and before.phase != token.phase:
                line.append_text(self.boundary())
            line.append_text(self.piece(token.text, self.measure.strength(token), token.position))
        return line

    def boundary(self) -> Text:
        """Where the prompt ends and the model's own text begins."""
        return Text(" ▌", style="bold cyan")

    def piece(self, text: str, strength: float, position: int = -1) -> Text:
        """A piece of text shaded by `strength`."""
        evidence, shown = position in self.evidence, printable(text)
        if position == 0:
            return Text(shown, style="dim")
        if self.colour:
            return Text(shown, style=self._style(strength, evidence))
        marked = strength >= self.measure.scale.strong or evidence
        return Text(_marked(shown, strength) if marked else shown)

    def legend(self) -> Text:
        """One line that says what the shading means."""
        scale = self.measure.scale
        if not self.colour:
            return Text(
                f"[token={scale.noun}]: {scale.strong:g} {scale.unit} or more, or evidence", style="dim"
            )
        swatches = [(f" {low:g} ", style) for low, style in zip(scale.levels, STYLES, strict=True)]
        parts = [(f"{scale.noun} ", "dim"), *swatches, (f"  {scale.unit} · ", "dim"), ("evidence", EVIDENCE)]
        return Text.assemble(*parts)

    def _style(self, strength: float, evidence: bool) -> str:
        levels = zip(self.measure.scale.levels, STYLES, strict=True)
        background = max(((low, style) for low, style in levels if strength >= low), default=(0.0, ""))[1]
        return f"{background} {EVIDENCE if evidence else ''}".strip()


def _marked(text: str, strength: float) -> str:
    """`[word=0.83]`, with the space that most tokens begin with left outside the bracket."""
    body = text.lstrip()
    return f"{text[: len(text) - len(body)]}[{body}={strength:.2f}]"
