"""`sae-monitor decisions filter`: the records that meet some conditions."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import typer

from monitor.cli.decisions import view
from monitor.cli.decisions.log import AsJson, Log, decisions, log_folder, readable
from monitor.cli.show.console import stdout_console
from monitor.cli.streams import stopping
from monitor.errors import InputError
from monitor.records import Action, Detection, Severity, Status
from monitor.telemetry.decisions import reader
from monitor.telemetry.decisions.record import DecisionRecord

_AGO = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_RANK = {severity: rank for rank, severity in enumerate(Severity)}


@dataclass(frozen=True, slots=True)
class Conditions:
    """Conditions on a record; None means no condition. A single detection must meet policy, rule and severity."""

    policy: str | None = None
    rule: str | None = None
    severity: Severity | None = None
    action: Action | None = None
    status: Status | None = None
    caller: str | None = None
    session: str | None = None
    since: float | None = None
    until: float | None = None

    def hold(self, record: DecisionRecord) -> bool:
        """True where the record meets all conditions."""
        return (
            (self.action is None or record.action >= self.action)
            and (self.status is None or record.status is self.status)
            and (self.caller is None or record.caller == self.caller)
            and (self.session is None or record.session == self.session)
            and (self.since is None or record.time >= self.since)
            and (self.until is None or record.time < self.until)
            and (not self._about_detections or any(map(self._detected, record.detections)))
        )

    @property
    def _about_detections(self) -> bool:
        return any(asked is not None for asked in (self.policy, self.rule, self.severity))

    def _detected(self, found: Detection) -> bool:
        return (
            (self.policy is None or found.policy == self.policy)
            and (self.rule is None or found.rule == self.rule)
            and (self.severity is None or _RANK[found.severity] >= _RANK[self.severity])
        )


def instant(text: str, now: Callable[[], float] = time.time) -> float:
    """Parse `2026-11-22`, `2026-11-22T13:00`, or `90s`, `15m`, `2h`, `7d` ago, as seconds since 1970.

    Raises InputError for anything else.
    """
    if ago := _AGO.fullmatch(text):
        return now() - float(ago[1]) * _SECONDS[ago[2]]
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"{text!r} is no time; write 2026-11-22, 2026-11-22T13:00 (UTC), or 15m, 2h, 7d ago"
        ) from None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def one_of(kind: str, text: str | None, known: dict[str, object]) -> object | None:
    """The member of `known` with this name; None for None. Raises InputError, which lists the names, for any other."""
    if text is None:
        return None
    if text.lower() not in known:
        raise InputError(f"there is no {kind} {text!r}; there are {', '.join(known)}")
    return known[text.lower()]


def conditions(
    policy: str | None,
    rule: str | None,
    severity: str | None,
    action: str | None,
    status: str | None,
    caller: str | None,
    session: str | None,
    since: str | None,
    until: str | None,
) -> Conditions:
    """Conditions from the values of flags. Raises InputError where one cannot be used."""
    return Conditions(
        policy,
        rule,
        one_of("severity", severity, {s.value: s for s in Severity}),  # type: ignore[arg-type]
        one_of("action", action, {a.name.lower(): a for a in Action}),  # type: ignore[arg-type]
        one_of("status", status, {s.value: s for s in Status}),  # type: ignore[arg-type]
        caller,
        session,
        None if since is None else instant(since),
        None if until is None else instant(until),
    )


PolicyName = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only records in which a rule of this policy fired.")
]
RuleName = Annotated[str | None, typer.Option(metavar="NAME", help="Only records in which this rule fired.")]
SeverityFloor = Annotated[
    str | None,
    typer.Option(
        metavar="low|medium|high|critical", help="Only detections of this severity or a higher one."
    ),
]
Since = Annotated[
    str | None,
    typer.Option(
        metavar="TIME|AGO",
        help="Only records from this time on: 2026-11-22T13:00 (UTC), or 15m, 2h or 7d for so long ago.",
    ),
]
Until = Annotated[
    str | None,
    typer.Option(metavar="TIME|AGO", help="Only records before this time, written as for --since."),
]


def select(
    log: Log = None,
    policy: PolicyName = None,
    rule: RuleName = None,
    severity: SeverityFloor = None,
    action: Annotated[
        str | None,
        typer.Option(
            metavar="alert|suppress|block",
            help="Only records whose strongest action is this one or a stronger one.",
        ),
    ] = None,
    status: Annotated[
        str | None,
        typer.Option(
            metavar="checked|unknown",
            help="Only requests that were scored in full (checked), or only those that were not (unknown).",
        ),
    ] = None,
    caller: Annotated[str | None, typer.Option(metavar="NAME", help="Only requests of this caller.")] = None,
    session: Annotated[
        str | None, typer.Option(metavar="ID", help="Only requests of this conversation.")
    ] = None,
    since: Since = None,
    until: Until = None,
    json: AsJson = False,
) -> None:
    """List the decisions that match all conditions, oldest first."""
    wanted = conditions(policy, rule, severity, action, status, caller, session, since, until)
    folder, console = log_folder(log), stdout_console()
    with readable(folder), stopping():
        for content, record in decisions(reader.read(folder)):
            if record is None or not wanted.hold(record):
                continue
            if json:
                typer.echo(view.as_json(content))
            else:
                console.print(view.line(content, record), soft_wrap=True)
