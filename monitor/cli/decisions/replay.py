"""`sae-monitor decisions replay`: applies another policy set to logged requests, and shows what would differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from monitor.cli import options
from monitor.cli.decisions import view
from monitor.cli.decisions.filter import PolicyName, Since, Until, conditions
from monitor.cli.decisions.log import Log, decisions, log_folder, readable
from monitor.cli.errors import ExitCode
from monitor.cli.output import json_line
from monitor.cli.show import words
from monitor.cli.show.console import stdout_console
from monitor.cli.show.progress import work_of
from monitor.errors import InputError
from monitor.lab.replay import CannotReplay, FromReadings, FromText, differs, stronger
from monitor.records import Verdict
from monitor.rpc.wire import enums
from monitor.telemetry.decisions import codec, reader
from monitor.telemetry.decisions.record import DecisionRecord, without_text

NOTHING_LOGGED = (
    "neither readings nor text were logged; serve with decision_log_readings (or decision_log_text) to replay later "
    "decisions"
)


def replay(
    policies: Annotated[
        Path, typer.Option("--policies", metavar="FOLDER", help="Folder of the policies to apply.")
    ],
    which: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ID", help="Ids of requests, or their beginnings. Default: every record of the log."
        ),
    ] = None,
    log: Log = None,
    policy: PolicyName = None,
    since: Since = None,
    until: Until = None,
    pair_name: options.PairOption = None,
    model: options.ModelOption = None,
    dictionary: options.DictionaryOption = None,
    dictionary_format: options.FormatOption = None,
    device: options.Device = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per record.")] = False,
) -> None:
    """Apply another policy set to logged requests, and show which decisions would have been different.

    A record that holds readings (decision_log_readings) is judged from them, without the model. The text in a record
    (decision_log_text) is read again by the model, which must be the one that the record was made with, and so must the
    dictionary. The replay judges the tokens that were generated then; it cannot tell what the model would have
    generated after another action. Exit code 2 where a record could not be replayed, or where there was none to replay.
    """
    wanted = conditions(policy, None, None, None, None, None, None, since, until)
    folder, counts, missing = log_folder(log), ReplayCounts(), set(which or [])

    def chosen() -> Iterator[tuple[dict[str, Any], DecisionRecord]]:
        for content, record in decisions(reader.read(folder)):
            if record is not None and wanted.hold(record) and _named(which, record):
                yield content, record

    with (
        readable(folder),
        _runner(policies, pair_name, model, dictionary, device, dictionary_format) as run,
        _progress(sum(_read_again(*found) for found in chosen())) as advance,
    ):
        for content, record in chosen():
            missing -= {name for name in missing if record.request_id.startswith(name)}
            try:
                now = run(content, record)
            except CannotReplay as error:
                counts.skipped[str(error)] += 1
            else:
                counts.replayed += 1
                counts.note(record, now)
                _print(content, record, now, json)
            advance(_read_again(content, record))
    if not json:
        stdout_console().print(counts.summary(), soft_wrap=True)
    if missing:
        names = ", ".join(sorted(missing))
        raise InputError(
            f"{folder} has no decision {names} for these conditions; `sae-monitor decisions tail` lists the last"
        )
    if not counts.replayed and not counts.skipped:
        raise InputError(f"no record of {folder} meets these conditions, so nothing was replayed")
    raise typer.Exit(ExitCode.ERROR if counts.skipped else ExitCode.CLEAN)


class ReplayCounts:
    """Counts of a replay: how many records were replayed, changed, or left out and why."""

    def __init__(self) -> None:
        self.replayed = 0
        self.changed: Counter[int] = Counter()
        self.skipped: Counter[str] = Counter()

    def note(self, record: DecisionRecord, now: Verdict) -> None:
        """Count a replayed decision by how it changed."""
        if differs(record, now):
            self.changed[stronger(record, now)] += 1

    def summary(self) -> Text:
        """Totals, and why records were left out."""
        changed = self.changed
        text = Text(
            f"{self.replayed} replayed: {changed.total()} differ ({changed[1]} stronger, {changed[-1]} weaker, "
            f"{changed[0]} other rules and the same action)"
        )
        for reason, count in self.skipped.most_common():
            text.append(f"\n{count} cannot be replayed: {reason}", "bold")
        return text


@contextmanager
def _runner(
    policies: Path,
    pair_name: str | None,
    model: str | None,
    dictionary: Path | None,
    device: str | None,
    dictionary_format: str | None = None,
) -> Iterator[Any]:
    """A function from a record to its verdict; the model is loaded when the first record needs it."""
    by_readings = FromReadings(policies)
    with ExitStack() as stack:
        by_text: list[FromText] = []

        def run(content: dict[str, Any], record: DecisionRecord) -> Verdict:
            if "readings" in content:
                return by_readings.run(content, record)
            if "text" not in content:
                raise CannotReplay(NOTHING_LOGGED)
            if not by_text:
                reader = _reading_texts(policies, pair_name, model, dictionary, device, dictionary_format)
                by_text.append(stack.enter_context(reader))
            return by_text[0].run(content, record)

        yield run


@contextmanager
def _reading_texts(
    policies: Path,
    pair_name: str | None,
    model: str | None,
    dictionary: Path | None,
    device: str | None,
    dictionary_format: str | None = None,
) -> Iterator[FromText]:
    """The model with the other policies, ready to read."""
    from monitor.rpc.assembly import assemble
    from monitor.settings import load_settings
    from monitor.telemetry.logs import configure

    configure("warning", "console")
    flags = {
        "pair": pair_name,
        "model": model,
        "dictionary": dictionary,
        "policies": policies,
        "device": device,
    }
    flags["dictionary_format"] = dictionary_format
    runtime, chosen, *_ = assemble(load_settings({**flags, "decision_log": "off"}))
    runtime.start()
    try:
        yield FromText(runtime, chosen)
    finally:
        runtime.stop(0.5)


def _read_again(content: dict[str, Any], record: DecisionRecord) -> int:
    """How many tokens the model reads again for a record; none where its readings were logged."""
    return max(1, record.coverage.tokens_run) if "text" in content and "readings" not in content else 0


@contextmanager
def _progress(tokens: int) -> Iterator[Callable[[int], None]]:
    """Show how far the model is. Nothing is shown where it reads nothing: the rest takes moments and needs no torch."""
    if not tokens:
        yield lambda amount: None
        return
    with work_of("reading again", tokens, "tokens") as advance:
        yield advance


def _named(which: list[str] | None, record: DecisionRecord) -> bool:
    return not which or any(record.request_id.startswith(name) for name in which)


def _print(content: dict[str, Any], record: DecisionRecord, now: Verdict, json: bool) -> None:
    if json:
        found = [codec.dump(without_text(detection)) for detection in now.detections]
        was, is_now = (a.name.lower() for a in (record.action, now.action))
        answer = {"seq": content["seq"], "request_id": record.request_id, "was": was, "now": is_now}
        typer.echo(json_line({**answer, "differs": differs(record, now), "detections": found}))
    elif differs(record, now):
        stdout_console().print(_line(content, record, now), soft_wrap=True)


def _line(content: dict[str, Any], record: DecisionRecord, now: Verdict) -> Text:
    """What was done, what would be done, and the rules that make the difference."""
    was, would = (words.action(enums.ACTION[action]) for action in (record.action, now.action))
    before = {(d.policy, d.rule, d.phase): d for d in record.detections}
    after = {(d.policy, d.rule, d.phase): d for d in now.detections}
    rules = [f"+ {view.fired(d)}" for key, d in after.items() if key not in before]
    rules += [f"- {view.fired(d)}" for key, d in before.items() if key not in after]
    change = was if was == would else f"{was} → {would}"
    return Text.assemble(
        (f"{content['seq']:>6}  {record.request_id[:8]}  ", "dim"),
        (f"{change:<20}", "bold"),
        f"  {', '.join(rules) or 'the same rules'}",
    )
