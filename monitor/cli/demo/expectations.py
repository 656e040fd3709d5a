"""The claims that the demonstration checks, and whether each held."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.text import Text

from monitor.cli.errors import ExitCode


@dataclass(frozen=True, slots=True)
class Expectation:
    """One claim about the server, whether it held, and what was found instead."""

    claim: str
    held: bool
    found: str


@dataclass(slots=True)
class Expectations:
    """All claims, in the order in which they were checked."""

    all: list[Expectation] = field(default_factory=list)

    def check(self, claim: str, held: bool, found: object = "") -> bool:
        """Record whether a claim held, and return that; `found` says what was found instead."""
        self.all.append(Expectation(claim, bool(held), str(found)))
        return bool(held)

    @property
    def failed(self) -> list[Expectation]:
        """Claims that did not hold."""
        return [e for e in self.all if not e.held]

    @property
    def code(self) -> ExitCode:
        """The exit code: 1 where a claim did not hold, or where none was checked."""
        return ExitCode.CLEAN if self.all and not self.failed else ExitCode.MATCHED

    def form(self) -> RenderableType:
        """A list of all claims with a mark for each, and the number of those that held."""
        rows = [_row(expectation) for expectation in self.all]
        held = len(self.all) - len(self.failed)
        style = "bold #ffffff on #1f7a3d" if self.code is ExitCode.CLEAN else "bold #ffffff on #b3132b"
        total = Text.assemble((f" {held} of {len(self.all)} ", style), " expectations held")
        return Group(*rows, Text(), total)


def _row(expectation: Expectation) -> Text:
    mark = ("  ✓ ", "green") if expectation.held else ("  ✗ ", "bold red")
    row = Text.assemble(mark, (expectation.claim, "" if expectation.held else "bold"))
    if not expectation.held and expectation.found:
        row.append(f"\n      found: {expectation.found}", style="red")
    return row
