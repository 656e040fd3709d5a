"""`sae-monitor decisions watch`: shows over gRPC what a running server detects."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.text import Text

from monitor.cli.decisions.filter import one_of
from monitor.cli.output import as_json
from monitor.cli.session import connected
from monitor.cli.show import words
from monitor.cli.show.console import stderr_console, stdout_console
from monitor.cli.show.printable import one_line, printable
from monitor.cli.show.verdict import detection_line
from monitor.cli.streams import stopping
from monitor.client import Client
from monitor.records import Severity
from monitor.v1 import monitor_pb2 as pb

_PAUSE = 1.0
"""Seconds between the end of a stream and the next call."""


def watch(
    address: Annotated[
        str, typer.Option("--connect", metavar="HOST:PORT", help="Address of the server to watch.")
    ] = ("127.0.0.1:50051"),
    policy: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only detections of this policy. Repeatable.")
    ] = None,
    severity: Annotated[
        str | None,
        typer.Option(
            metavar="low|medium|high|critical", help="Only detections of this severity or a higher one."
        ),
    ] = None,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Also show what rules in shadow mode would have done.")
    ] = False,
    after: Annotated[
        str | None,
        typer.Option(
            metavar="CURSOR|0",
            help="Begin after the event with this cursor, which --json shows and Ctrl-C prints; 0 begins "
            "with the oldest record. Default: only new records.",
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print each event as one line of JSON instead of text.")
    ] = False,
) -> None:
    """Show what a running server detects, as it is decided, and which requests it could not check.

    A server that authenticates its callers asks for the role inspect.
    """
    if severity is not None:
        one_of("severity", severity, {s.value: s for s in Severity})
    wanted: dict[str, Any] = {"policies": policy or (), "minimum_severity": (severity or "").lower()}
    wanted |= {"include_shadow": shadow, "include_unknown": True}
    console, dropped, last = stdout_console(), 0, ""
    try:
        with stopping(), connected(address) as client:
            for event in _events(client, after, wanted):
                last = event.cursor or last
                if json:
                    typer.echo(as_json(event))
                    continue
                if event.dropped > dropped:
                    console.print(
                        Text(f"{event.dropped - dropped} decisions were missed here", "bold #b3132b")
                    )
                dropped = event.dropped
                console.print(said(event), soft_wrap=True)
    except KeyboardInterrupt:
        if last and not json:
            stderr_console().print(f"go on with --after {last}", style="dim", soft_wrap=True)
        raise typer.Exit(0) from None


def _events(
    client: Client, after: str | None, wanted: dict[str, Any]
) -> Iterator[pb.WatchDetectionsResponse]:
    """Events of one stream after another. The server ends each stream shortly before `max_call_seconds` are over.

    Raises CallFailed where a call fails.
    """
    while True:
        with client.watch_detections(after=after, **wanted) as events:
            for event in events:
                after = event.cursor or after
                yield event
        time.sleep(_PAUSE)


def said(event: pb.WatchDetectionsResponse) -> Text:
    """A line for the request, and one for each rule that fired in it."""
    when = event.time.ToDatetime().strftime("%Y-%m-%d %H:%M:%SZ")
    number = str(event.record) if event.record else "-"
    text = Text.assemble(
        (f"{number:>6}  {when}  ", "dim"),
        (f" {words.action(event.action):^8} ", words.ACTION_STYLE.get(event.action, "bold")),
        f"  {printable(event.method)}",
    )
    if event.status != pb.CHECK_STATUS_CHECKED:
        text.append(f"  UNKNOWN ({printable(event.failure)})", "bold #b3132b")
    text.append(f"  {event.request_id}" + (f"  {one_line(event.caller)}" if event.caller else ""), "dim")
    for found in event.detections:
        text.append("\n        ").append_text(detection_line(found))
    return text
