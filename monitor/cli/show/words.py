"""Words and colours for the values of the protocol's enums, such as `block` for `ACTION_BLOCK`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from monitor.v1 import monitor_pb2 as pb

ACTION_STYLE = {
    pb.ACTION_ALLOW: "green",
    pb.ACTION_ALERT: "bold #111111 on #ffcc70",
    pb.ACTION_SUPPRESS: "bold #111111 on #ff9f45",
    pb.ACTION_BLOCK: "bold #ffffff on #b3132b",
}

SEVERITY_STYLE = {
    pb.SEVERITY_LOW: "cyan",
    pb.SEVERITY_MEDIUM: "yellow",
    pb.SEVERITY_HIGH: "bold red",
    pb.SEVERITY_CRITICAL: "bold #ffffff on #b3132b",
}


def action(value: int) -> str:
    """`alert` for ACTION_ALERT."""
    return _word(pb.Action.Name, value, "ACTION_")


def severity(value: int) -> str:
    """`high` for SEVERITY_HIGH."""
    return _word(pb.Severity.Name, value, "SEVERITY_")


def phase(value: int) -> str:
    """`prompt` for PHASE_PROMPT."""
    return _word(pb.Phase.Name, value, "PHASE_")


def finish(value: int) -> str:
    """Why a generation ended, in words."""
    words: dict[int, str] = {
        pb.FINISH_REASON_STOP: "the model or a stop string ended it",
        pb.FINISH_REASON_LENGTH: "the token limit was reached",
        pb.FINISH_REASON_POLICY: "a policy ended it",
    }
    return words.get(value, f"unknown reason {value}")


def counted(number: int, noun: str, several: str | None = None) -> str:
    """`1 record`, `2 records`; `several` where an s is not enough."""
    return f"{number:,} {noun if number == 1 else several or noun + 's'}"


def short_digest(digest: str) -> str:
    """The first twelve hexadecimal digits; a dash where there is none."""
    return digest.removeprefix("sha256:")[:12] or "-"


def _word(name: Callable[[Any], str], value: int, prefix: str) -> str:
    """The enum's name without its prefix; a newer server may send a number that has none yet."""
    try:
        return str(name(value)).removeprefix(prefix).lower()
    except ValueError:
        return f"value {value}"
