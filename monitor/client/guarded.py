"""What a guard, or the sidecar's own API, says of an answer: the object `sae_monitor` in it, with types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from monitor.client.messages import as_mapping

_FIELD = "sae_monitor"


class Unmonitored(ValueError):
    """An answer without a verdict: nothing monitors it."""


@dataclass(frozen=True)
class GuardedVerdict:
    """The verdict on an answer, in short."""

    status: str
    """`checked`, or `unknown` where something could not be scored."""
    action: str
    """The strongest enforced action: allow, alert, suppress or block."""
    matched: bool
    policies: tuple[str, ...]
    """Names of the policies whose rules fired."""
    request_id: str
    mode: str
    """How a guard held the text: hold, sample or end; empty for a server that generated it itself."""
    released_unread: int
    """Characters that left before they were scored."""
    failures: tuple[str, ...]
    """Why something was not scored."""

    @property
    def clean(self) -> bool:
        """True where all was scored and no rule fired."""
        return self.status == "checked" and not self.matched


def guarded_verdict(answer: Any) -> GuardedVerdict:
    """The verdict of a whole answer, or of the last chunk of a stream: an object of `openai`, or JSON.

    Raises Unmonitored where there is none.
    """
    said = as_mapping(answer).get(_FIELD)
    if not isinstance(said, Mapping) or "status" not in said:
        raise Unmonitored(
            f"the answer has no `{_FIELD}`: it did not come through a guard, or is not the last chunk"
        )
    verdicts = said.get("verdicts", ())
    fired = {found["policy"]: None for one in verdicts for found in one.get("detections", ())}
    failures = {one["failure"]: None for one in verdicts if one.get("failure")}
    return GuardedVerdict(
        said["status"],
        said["action"],
        bool(said["matched"]),
        tuple(fired),
        said["request_id"],
        said.get("mode", ""),
        int(said.get("released_unread", 0)),
        tuple(failures),
    )
