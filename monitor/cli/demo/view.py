"""The output of the demonstration, as objects that rich prints."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from monitor.cli.clamps import clamp_text
from monitor.cli.demo.script import DemoLine
from monitor.cli.demo.tally import Moved
from monitor.cli.show import words
from monitor.cli.show.comparison import ClampComparison
from monitor.cli.show.printable import printable
from monitor.cli.show.shade import Painter
from monitor.cli.show.strength import FeatureReadings
from monitor.cli.show.verdict import closest, detection_line, status_line
from monitor.v1 import monitor_pb2 as pb

FALLS_SHOWN = 6


def heading(title: str) -> RenderableType:
    """The heading of a step."""
    return Padding(Rule(Text(title, style="bold"), align="left", style="dim"), (1, 0, 0, 0))


def loaded(answer: pb.ListPoliciesResponse) -> RenderableType:
    """A table of the loaded policies, and the digests of what runs."""
    table = _grid()
    for policy in answer.policies:
        rules = ", ".join(f"{r.name} → {_acts(r)}" for r in policy.rules)
        features = len({f for rule in policy.rules for f in rule.features})
        table.add_row(
            Text(f"  {printable(policy.name)}", style="bold"),
            Text(words.severity(policy.severity), style=words.SEVERITY_STYLE.get(policy.severity, "")),
            Text(f"{_count(features, 'feature')}, {_count(len(policy.clamps), 'clamp')}", style="dim"),
            Text(printable(rules)),
        )
    digests = answer.digests
    what = {"model": digests.model, "dictionary": digests.dictionary, "policies": digests.policies}
    line = " · ".join(f"{name} {words.short_digest(digest)}" for name, digest in what.items())
    return Group(table, Text(f"  {line}", style="dim"))


def verdict(line: DemoLine, answer: pb.ScoreResponse, painter: Painter) -> RenderableType:
    """One scored line: the shaded text, its status, and what fired."""
    expected = f"expected: {line.category}" if line.category else "expected: nothing"
    rows: list[RenderableType] = [painter.with_evidence(answer.verdict.detections).tokens(answer.tokens)]
    status = status_line(answer.verdict)
    status.append(f" · {expected}", style="dim")
    rows.append(status)
    rows += [detection_line(d) for d in answer.verdict.detections]
    if not answer.verdict.detections:
        rows.append(_nearest(answer.verdict, "red" if line.category else "green"))
    return Padding(Group(rows[0], Padding(Group(*rows[1:]), (0, 0, 0, 2))), (1, 0, 0, 0))


def side_by_side(comparison: ClampComparison, colour: bool) -> RenderableType:
    """Both texts beside each other, shaded by the clamped features, and their readings."""
    features = frozenset(c.feature for c in comparison.clamps)
    painter = Painter(FeatureReadings(features), colour)
    table = Table(expand=True, show_edge=False, padding=(0, 1), border_style="dim")
    table.add_column("without suppression", ratio=1, overflow="fold")
    table.add_column("with suppression", ratio=1, overflow="fold")
    table.add_row(painter.tokens(comparison.plain.tokens), painter.tokens(comparison.clamped.tokens))
    return Group(table, Padding(_readings(comparison), (1, 0)), painter.legend())


def counters(rows: Iterable[Moved]) -> RenderableType:
    """A table of counters, with their actual and, where it differs, their expected increase."""
    table = _grid()
    for row in rows:
        mark = ("✓", "green") if row.right else ("✗", "bold red")
        wanted = Text("" if row.right else f"expected +{row.expected:g}", style="red")
        table.add_row(Text.assemble("  ", mark), Text(printable(row.name)), Text(f"+{row.found:g}"), wanted)
    return table


def _readings(comparison: ClampComparison) -> RenderableType:
    """What the clamps left of the features that were active."""
    falls = comparison.falls
    names = ("  clamp", "highest before", "where clamped", "elsewhere")
    table = _grid(*(Text(name, "dim") for name in names))
    for fall in falls[:FALLS_SHOWN]:
        readings = (fall.before, fall.clamped, fall.elsewhere)
        table.add_row(Text(f"  {clamp_text(fall.clamp)}"), *(Text(f"{value:.2f}") for value in readings))
    rest = len(falls) - FALLS_SHOWN
    before, after = comparison.per_token
    together = f"  together, per token: {before:.2f} before, {after:.2f} with clamps"
    return Group(table, Text(f"  and {rest} more", "dim") if rest > 0 else Text(), Text(together))


def _nearest(verdict: pb.Verdict, style: str) -> Text:
    """No rule fired, and which came closest."""
    return Text.assemble(("no rule fired", style), (f"; closest: {closest(verdict)}", "dim"))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _acts(rule: pb.Rule) -> str:
    acts = words.action(rule.action)
    return f"{acts} (shadow)" if rule.mode == pb.MODE_SHADOW else acts


def _grid(*head: Text) -> Table:
    table = Table.grid(padding=(0, 2))
    if head:
        table.add_row(*head)
    return table
