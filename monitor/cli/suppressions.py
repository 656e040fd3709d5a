"""What became of clamps, and what a policy wants to be said: lines for people.

Knows messages of the protocol. Does not know where they came from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.text import Text

from monitor.cli.printable import printable
from monitor.v1 import monitor_pb2 as pb


def suppression_lines(found: Iterable[pb.Suppression]) -> Iterator[Text]:
    """One line per policy that suppressed: held or not, what is left at the layer, what the later probe saw."""
    for one in found:
        word, style = (" HELD ", "#ffffff on #1f7a3d") if one.held else (" CAME BACK ", "#ffffff on #9a6700")
        if not one.held and not one.came_back:
            word = " NOT GONE "
        line = Text.assemble((word, f"bold {style}"), f"  {printable(one.policy)} suppressed: ")
        line.append(f"{one.tokens_edited} tokens edited")
        if one.tokens_edited:
            line.append(f", reading {one.before:.2f} → {one.after:.2f} at the layer")
        if one.HasField("probe_score"):
            line.append(f", later probe {one.probe_score:.2f} of {one.probe_threshold:.2f}")
        yield line


def refusal_line(text: str) -> Text | None:
    """What the policy that ended it wants to be shown; None where it says nothing."""
    return Text.assemble(("  refusal: ", "dim"), printable(text)) if text else None
