"""Tokens shaded by the strongest watched feature that a rule reads.

Knows how a reading becomes a background, or a mark where there are no colours. Does not know verdicts.
The scale is the feature's own: 1.0 is the highest activation that was recorded for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rich.text import Text

from monitor.cli.printable import printable
from monitor.v1 import monitor_pb2 as pb

LEVELS: tuple[tuple[float, str], ...] = (
    (0.10, "#111111 on #ffe9b0"),
    (0.25, "#111111 on #ffcc70"),
    (0.40, "#111111 on #ff9f45"),
    (0.60, "#111111 on #f0683c"),
    (0.80, "bold #ffffff on #b3132b"),
)
"""Lowest reading of each level and its style. Both colours are set, so it reads on dark and light alike."""

STRONG = 0.40
"""From here on a token is marked where there are no colours."""

EVIDENCE = "bold underline"


@dataclass(frozen=True, slots=True)
class RuleFeatures:
    """Which features rules read; nothing else is shaded (a feature that is only clamped is no evidence)."""

    features: frozenset[int]
    after_clamp: bool = False
    """Show what clamps left of a reading, instead of what rules saw."""

    @classmethod
    def of(cls, policies: Iterable[pb.Policy]) -> RuleFeatures:
        """The features of every rule of every policy."""
        return cls(frozenset(f for policy in policies for rule in policy.rules for f in rule.features))

    def strength(self, token: pb.ScoredToken) -> float:
        """Highest reading at this token, in units of the feature's maximum; 0 at the start token.

        Rules skip position 0: every sequence has the same huge activations there.
        """
        if token.position == 0:
            return 0.0
        readings = (r for r in token.readings if r.feature in self.features)
        return max((shown_reading(r) if self.after_clamp else r.value for r in readings), default=0.0)


def shown_reading(reading: pb.Reading) -> float:
    """What a clamp left of a reading; the reading itself where nothing was clamped."""
    return float(reading.value_after_clamp if reading.HasField("value_after_clamp") else reading.value)


@dataclass(frozen=True, slots=True)
class Painter:
    """Turns tokens into styled text."""

    rules: RuleFeatures
    colour: bool
    """Shade backgrounds; otherwise strong tokens are put in brackets with their reading."""
    evidence: frozenset[int] = field(default_factory=frozenset)
    """Positions that a detection rests on."""

    def with_evidence(self, detections: Iterable[pb.Detection]) -> Painter:
        """The same painter, knowing which tokens detections rest on."""
        positions = frozenset(e.position for d in detections for e in d.evidence)
        return Painter(self.rules, self.colour, positions)

    def tokens(self, tokens: Sequence[pb.ScoredToken]) -> Text:
        """All tokens in order; the model's own text is set off by a bar where it begins."""
        line = Text()
        for before, token in zip([None, *tokens], tokens, strict=False):
            if before is not None and before.phase != token.phase:
                line.append_text(self.boundary())
            line.append_text(self.piece(token.text, self.rules.strength(token), token.position))
        return line

    def boundary(self) -> Text:
        """Where the prompt ends and the model's own text begins."""
        return Text(" ▌", style="bold cyan")

    def piece(self, text: str, strength: float, position: int = -1) -> Text:
        """A piece of text shaded by `strength`."""
        evidence = position in self.evidence
        if position == 0:
            return Text(printable(text), style="dim")
        if self.colour:
            return Text(printable(text), style=_style(strength, evidence))
        return Text(_marked(printable(text), strength) if strength >= STRONG or evidence else printable(text))

    def legend(self) -> Text:
        """One line that says what the shading means."""
        if not self.colour:
            return Text(f"[token=reading]: at least {STRONG:.2f} of the feature's maximum, or evidence")
        swatches = [(f" {low:.2f} ", style) for low, style in LEVELS]
        note = "  of the feature's maximum · "
        return Text.assemble(("reading ", "dim"), *swatches, (note, "dim"), ("evidence", EVIDENCE))


def _style(strength: float, evidence: bool) -> str:
    background = next((style for low, style in reversed(LEVELS) if strength >= low), "")
    return f"{background} {EVIDENCE if evidence else ''}".strip()


def _marked(text: str, strength: float) -> str:
    """`[word=0.83]`, with the space that most tokens begin with left outside the bracket."""
    body = text.lstrip()
    return f"{text[: len(text) - len(body)]}[{body}={strength:.2f}]"
