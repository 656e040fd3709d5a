"""`sae-monitor decisions tail | show | verify`: reads the decision log of a server on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from monitor.cli.decisions import view
from monitor.cli.decisions.log import AsJson, Log, decisions, log_folder, readable
from monitor.cli.errors import ExitCode
from monitor.cli.show import words
from monitor.cli.show.console import stdout_console
from monitor.cli.streams import stopping
from monitor.errors import InputError
from monitor.telemetry.decisions import reader
from monitor.telemetry.decisions.record import DecisionRecord

_SHORTEST = 4
"""Characters of a request id."""
_NAMED = 10
"""Records that are named where an id stands for several."""


def tail(
    log: Log = None,
    number: Annotated[
        int, typer.Option("-n", "--number", min=0, help="Show this many of the newest records.")
    ] = 10,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Keep running, and show new records as they are written.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Show the last decisions, and with -f those to come."""
    folder, console = log_folder(log), stdout_console()
    with readable(folder), stopping():
        after = max(0, reader.newest(folder) - number)
        found = reader.follow(folder, after) if follow else reader.read(folder, after)
        for content, record in decisions(found):
            if json:
                typer.echo(view.as_json(content))
            else:
                console.print(view.line(content, record), soft_wrap=True)


def show(
    which: Annotated[
        str,
        typer.Argument(
            metavar="ID|NUMBER",
            help="The id of a request or at least four characters of its beginning, also the one that the server "
            "behind a guard gave it; or the number of a record.",
        ),
    ],
    log: Log = None,
    json: AsJson = False,
) -> None:
    """Show one decision in full: who, what fired on which tokens, what was done."""
    folder = log_folder(log)
    with readable(folder):
        found = [
            (content, record)
            for content, record in decisions(reader.read(folder))
            if record is not None and _is(which, content["seq"], record)
        ]
    if not found:
        raise InputError(f"{folder} has no decision {which}; `sae-monitor decisions tail` lists the last")
    if len(found) > 1:
        numbers = ", ".join(str(content["seq"]) for content, _ in found[:_NAMED])
        raise InputError(
            f"{which} is the beginning of ids in {len(found)} records; write more, or the number of one: {numbers}"
        )
    (content, record), console = found[0], stdout_console()
    if json:
        typer.echo(view.as_json(content))
    else:
        console.print(view.whole(content, record))


def _is(which: str, seq: int, record: DecisionRecord) -> bool:
    number = which.removeprefix("#")
    if number.isdigit() and len(number) < _SHORTEST * 2 and int(number) == seq:
        return True
    ids = record.request_id, record.upstream_request_id
    return len(which) >= _SHORTEST and any(one.startswith(which) for one in ids)


def check(log: Log = None) -> None:
    """Check every line against its checksum, and that no number is missing. Exit code 1 where something is wrong."""
    folder, console = log_folder(log), stdout_console()
    with readable(folder):
        report = reader.verify(folder)
    for fault in report.faults:
        console.print(fault, soft_wrap=True)
    span = f"{report.first} to {report.last}" if report.records else "none yet"
    faults = len(report.faults)
    state = words.counted(faults, "fault") if faults else "every line is whole, none is missing"
    state += f" ({words.counted(report.missing, 'record')} missing)" if report.missing else ""
    if report.deleted:
        state += f"; {words.counted(report.deleted, 'older record')} were deleted by retention"
    writing = "; a line is being written now" if report.writing else ""
    records, files = words.counted(report.records, "record"), words.counted(report.files, "file")
    console.print(f"{records} ({span}) in {files}: {state}{writing}", soft_wrap=True)
    raise typer.Exit(ExitCode.MATCHED if report.faults else ExitCode.CLEAN)
