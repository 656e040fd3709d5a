"""A record of the decision log as text: one line of a list, or everything that it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from monitor.cli.output import json_line
from monitor.cli.show import verdict as render
from monitor.cli.show import words
from monitor.cli.show.printable import one_line, printable
from monitor.records import Detection, Mode, Status, Verdict
from monitor.rpc.wire import enums, responses
from monitor.telemetry.decisions.record import DecisionRecord


def as_json(content: Mapping[str, Any]) -> str:
    """The JSON of a line of the log, without its checksum."""
    return json_line(content)


def line(content: Mapping[str, Any], record: DecisionRecord | None) -> Text:
    """One line of a list: number, time, action, what fired and where, how it ended."""
    if record is None:
        return _gap(content)
    action = enums.ACTION[record.action]
    text = Text.assemble(
        (f"{content['seq']:>6}  {moment(record.time)}  ", "dim"),
        (f" {words.action(action):^8} ", words.ACTION_STYLE.get(action, "bold")),
        f"  {record.method:<14}  ",
    )
    if record.status is Status.UNKNOWN:
        text.append(f"UNKNOWN ({printable(record.failure or '')})  ", "bold #b3132b")
    text.append(", ".join(map(fired, record.detections)) or "nothing fired")
    if record.outcome != "answered":
        text.append(f"  {record.outcome}", "bold")
    ends = f"  {record.request_id[:8]}" + (f"  {one_line(record.caller)}" if record.caller else "")
    return text.append(ends, "dim")


def fired(found: Detection) -> str:
    """A detection in a few words: `policy/rule severity prompt@12`."""
    shadow = " (shadow)" if found.mode is Mode.SHADOW else ""
    name = f"{printable(found.policy)}/{printable(found.rule)}"
    return f"{name} {found.severity.value} {found.phase.value}@{found.position}{shadow}"


def _gap(content: Mapping[str, Any]) -> Text:
    if content.get("kind") != "gap":
        return Text(f"{content['seq']:>6}  (a line of kind {content.get('kind')!r})", "dim")
    since, until = moment(float(content["since"])), moment(float(content["time"]))
    what = f"{content['lost']} decisions are missing here: {since} to {until}, {content['reason']}"
    return Text.assemble((f"{content['seq']:>6}  ", "dim"), (what, "bold #b3132b"))


def moment(seconds: float) -> str:
    """Seconds since 1970 as a time in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def whole(content: Mapping[str, Any], record: DecisionRecord) -> RenderableType:
    """Everything that a record contains, as text."""
    verdict = responses.verdict(
        Verdict(
            record.status,
            record.action,
            record.coverage,
            tuple(map(_unquoted, record.detections)),
            record.scores,
            record.failure,
            record.suppressions,
        )
    )
    parts: list[RenderableType] = [
        _head(content, record),
        Padding(render.verdict_block(verdict), (1, 0, 0, 0)),
    ]
    if "text" in content:
        parts.append(Padding(_text(content["text"]), (1, 0, 0, 0)))
    parts.append(render.footer(record.request_id, responses.digests(record.digests)))
    return Group(*parts)


def _unquoted(found: Detection) -> Detection:
    """Evidence without its tokens, said so that nobody takes it for blocked text."""
    return replace(found, evidence=tuple(replace(token, text="…") for token in found.evidence))


def _head(content: Mapping[str, Any], record: DecisionRecord) -> Text:
    """Who asked, when, and what became of it."""
    prompt = content.get("prompt", {})
    rows = {
        "record": f"{content['seq']}, {moment(record.time)}, after {record.seconds:.3f} s",
        "method": f"{record.method}, {record.outcome}"
        + (f", ended by {record.finish}" if record.finish else ""),
        "caller": record.caller,
        "session": record.session,
        "labels": ", ".join(f"{key}={value}" for key, value in content.get("labels", {}).items()),
        "trace": record.trace_id,
        "upstream": record.upstream_request_id,
        "prompt": f"{prompt.get('tokens')} tokens, {str(prompt.get('hmac'))[:16]}… with key {prompt.get('key')}",
        "response": f"{record.tokens_generated} tokens" if record.tokens_generated else "",
        "replay": replayable(content),
    }
    text = Text()
    for name, value in rows.items():
        if value:
            text.append(f"{name:>9}  ", "dim").append(f"{one_line(value)}\n")
    text.rstrip()
    return text


def replayable(content: Mapping[str, Any]) -> str:
    """Says what a record can be replayed from: readings, text, or nothing."""
    if "readings" in content:
        return "from its readings"
    return "from its text" if "text" in content else "not possible: neither readings nor text were logged"


def _text(text: Mapping[str, Any]) -> Text:
    prompt = text.get("prompt", "")
    turns = [{"role": "prompt", "content": prompt}] if isinstance(prompt, str) else prompt
    shown = Text()
    for turn in [*turns, {"role": "response", "content": text.get("response", "")}]:
        if turn["content"]:
            shown.append(f"{turn['role']}: ", "dim").append(f"{printable(turn['content'])}\n")
    shown.rstrip()
    return shown
