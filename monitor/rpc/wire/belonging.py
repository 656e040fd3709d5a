"""What a request says it belongs to: a session, and labels.

Knows limits of both. Does not know which policies look at them.
"""

from __future__ import annotations

import re

from monitor.rpc.wire.problems import Problems
from monitor.v1 import monitor_pb2 as pb

LONGEST_SESSION = 128
MOST_LABELS = 16
LONGEST_LABEL = 200
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


def belonging(message: pb.Input, path: str, problems: Problems) -> tuple[str, dict[str, str]]:
    """Session id (empty: none) and labels; adds what is wrong with them to `problems`."""
    if len(message.session_id) > LONGEST_SESSION:
        problems.add(f"{path}.session_id", f"is longer than {LONGEST_SESSION} characters")
    labels = dict(message.labels)
    if len(labels) > MOST_LABELS:
        problems.add(f"{path}.labels", f"has more than {MOST_LABELS} labels; write fewer")
        return message.session_id, {}
    for name, value in labels.items():
        if not _NAME.fullmatch(name):
            problems.add(
                f"{path}.labels", "a name must be 1 to 64 letters, digits, `_`, `.` or `-`, no digit first"
            )
        if len(value) > LONGEST_LABEL:
            problems.add(f"{path}.labels", f"a value is longer than {LONGEST_LABEL} characters")
    return message.session_id, labels
