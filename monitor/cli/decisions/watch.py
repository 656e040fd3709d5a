"""`sae-monitor decisions watch`: what a running server detects, from anywhere that reaches its port.

Knows the call and how an event is said. Does not know the log's files.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any

import grpc
import typer
from rich.text import Text

from monitor.cli import options
from monitor.cli.decisions.filter import one_of
from monitor.cli.output import as_json
from monitor.cli.session import checked
from monitor.cli.show import words
from monitor.cli.show.console import stdout_console
from monitor.cli.show.printable import one_line, printable
from monitor.cli.show.verdict import detection_line
from monitor.client.client import Client, connect, failure
from monitor.client.credentials import from_environment
from monitor.records import Severity
from monitor.rpc.wire.enums import SEVERITY
from monitor.v1 import monitor_pb2 as pb
from monitor.v1 import monitor_pb2_grpc

_PAUSE = 1.0
"""Seconds before a stream that ended is asked for again."""


def watch(
    address: Annotated[str, typer.Option("--connect", metavar="HOST:PORT", help="The server.")] = (
        "127.0.0.1:50051"
    ),
    policy: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Repeatable. Default: all.")
    ] = None,
    severity: Annotated[
        str | None, typer.Option(metavar="low|medium|high|critical", help="At least.")
    ] = None,
    shadow: Annotated[bool, typer.Option("--shadow", help="Rules in shadow mode too.")] = False,
    after: Annotated[
        int | None, typer.Option(min=0, metavar="NUMBER", help="Begin behind this record; 0: the whole log.")
    ] = None,
    json: options.AsJson = False,
) -> None:
    """Show what a running server detects, as it is decided, and what it could not check. Needs the role inspect."""
    level = one_of("severity", severity, {s.value: s for s in Severity})
    request = pb.WatchDetectionsRequest(
        policies=policy or (),
        minimum_severity=SEVERITY[level] if isinstance(level, Severity) else pb.SEVERITY_UNSPECIFIED,
        include_shadow=shadow,
        include_unknown=True,
        after=after,
    )
    console, dropped = stdout_console(), 0
    try:
        with connect(checked(address), timeout=0, identity=from_environment()) as client:
            for event in _events(client, request):
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
        raise typer.Exit(0) from None


def _events(client: Client, request: pb.WatchDetectionsRequest) -> Iterator[pb.WatchDetectionsResponse]:
    """Events of one stream after the other: a stream ends by itself when the longest call is over.

    Raises CallFailed where the server cannot be asked again.
    """
    stub: Any = monitor_pb2_grpc.MonitorServiceStub(client.channel)
    while True:
        call = stub.WatchDetections(request)
        try:
            for event in call:
                if event.cursor:
                    request.after = event.cursor
                yield event
        except grpc.RpcError as error:
            raise failure(error) from error
        finally:
            call.cancel()
        time.sleep(_PAUSE)


def said(event: pb.WatchDetectionsResponse) -> Text:
    """A line for the request, and one for each rule that fired."""
    when = event.time.ToDatetime().strftime("%Y-%m-%d %H:%M:%SZ")
    number = str(event.cursor) if event.cursor else "-"
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
