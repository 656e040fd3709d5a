"""Settings of the decision log and of traces; part of `monitor.settings.Settings`, which reads them.

Knows names, types and defaults. Does not open what they name.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings

MASKS = {
    # A match begins only where a run of these does, or right behind another one: tried at each place of a long word, it
    # would cost the square of its length.
    "email": re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+(?:[.+][\w.+-]*@[\w-]+(?:\.[\w-]+)+)*"),
    "number": re.compile(r"\+?\d(?:[ ./()-]{0,2}\d){3,}"),
}
"""What is cut out of logged text unless the operator says otherwise: addresses, and numbers of four digits or more."""


def _plain(value: object) -> object:
    """A folder by any type; YAML 1.1 readers and people alike write `off` as a boolean."""
    if value is False:
        return "off"
    return str(value) if isinstance(value, Path) else value


class DecisionSettings(BaseSettings):
    """Where decisions are written, what they contain, and where spans are sent."""

    decision_log: Annotated[str, BeforeValidator(_plain), Field(min_length=1)] = "auto"
    """Folder of the decision log, `off`, or `auto`: a folder of this user and this port, and off on port 0."""

    decision_log_records: Literal["detections", "all"] = "detections"
    """Which requests get a record: those with a detection, an action or a monitoring failure; or all."""

    decision_log_on_full: Literal["refuse", "drop"] = "refuse"
    """When a record cannot be written: refuse the request (UNAVAILABLE), or answer it and count the loss."""

    decision_log_text: bool = False
    """Write prompts and released responses into records, masked."""

    decision_log_masks: dict[str, re.Pattern[str]] = MASKS
    """Regular expressions by name; what they match in logged text becomes `[name]`. Replaces the two built in."""

    decision_log_salt_file: Path | None = None
    """File with at least 16 bytes of key for prompt hashes. None is a key of this process, gone when it ends."""

    decision_log_readings: bool = False
    """Write the readings of watched features for every token, so that a record can be replayed."""

    decision_log_file_bytes: Annotated[int, Field(ge=4096)] = 64 << 20
    """A file of the log that is this large is closed and another begun."""

    decision_log_file_seconds: Annotated[float, Field(gt=0)] = 86400.0
    """So is one that is this old."""

    decision_log_keep_files: Annotated[int, Field(ge=1)] | None = None
    """Most files that are kept, the newest included. None keeps any number."""

    decision_log_keep_bytes: Annotated[int, Field(ge=4096)] | None = 1 << 30
    """Most bytes that are kept. None keeps any number."""

    decision_log_keep_seconds: Annotated[float, Field(gt=0)] | None = None
    """Files whose last record is older are deleted. None keeps them for ever."""

    watch_subscribers: Annotated[int, Field(ge=0)] = 16
    """WatchDetections streams at once; one more is refused with RESOURCE_EXHAUSTED."""

    otlp_endpoint: str | None = None
    """Where spans are sent over OTLP/gRPC, such as http://127.0.0.1:4317. Needs the extra `otel`."""

    trace_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of requests that are traced where the caller did not decide."""


def decision_folder(settings: DecisionSettings, port: int) -> Path | None:
    """The folder that `decision_log` stands for on a server with this gRPC port; None where it is off."""
    chosen = settings.decision_log
    if chosen == "off" or (chosen == "auto" and port == 0):
        return None
    if chosen != "auto":
        return Path(chosen)
    # systemd gives the unit a folder of its own; elsewhere https://specifications.freedesktop.org/basedir-spec
    if unit := os.environ.get("STATE_DIRECTORY", "").split(":")[0]:
        return Path(unit) / "decisions" / str(port)
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "sae-monitor" / "decisions" / str(port)
