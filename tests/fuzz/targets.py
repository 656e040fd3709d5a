"""All targets by name."""

from __future__ import annotations

from collections.abc import Callable

from tests.fuzz.calls import Calls, Headers, Wire
from tests.fuzz.conversations import Conversations, Templates
from tests.fuzz.dictionaries import Cards, Dictionaries
from tests.fuzz.files import (
    CallerFiles,
    DecisionLogs,
    Environments,
    ExampleFiles,
    Locks,
    Policies,
    SettingsFiles,
)
from tests.fuzz.frames import Frames
from tests.fuzz.target import Target

TARGETS: dict[str, Callable[[], Target]] = {
    kind.name: kind
    for kind in (
        Wire,
        Calls,
        Headers,
        Frames,
        Conversations,
        Templates,
        Policies,
        Locks,
        ExampleFiles,
        SettingsFiles,
        Environments,
        CallerFiles,
        DecisionLogs,
        Dictionaries,
        Cards,
    )
}
SHARES = {
    "wire": 640,
    "rpc": 200,
    "headers": 300,
    "frames": 10,
    "conversations": 120,
    "templates": 60,
    "policy": 40,
    "lock": 10,
    "examples": 120,
    "settings": 40,
    "environment": 60,
    "callers": 300,
    "decisions": 220,
    "dictionary": 50,
    "cards": 10,
}
"""Of two thousand cases, how many go to each, by how quick they are and how much there is to find."""
