"""What can go wrong with a call: no server answers, or it answers with an error status."""

from __future__ import annotations

from monitor.errors import MonitorError, Violation


class Unreachable(MonitorError):
    """No server answers at the address."""

    code = "UNAVAILABLE"


class CallFailed(MonitorError):
    """The server answered a call with an error status."""

    def __init__(self, status: str, details: str, violations: tuple[Violation, ...] = ()) -> None:
        self.code = status
        self.violations = violations
        lines = [f"the server answered {status}: {details}"]
        lines += [f"  {v.field}: {v.description}" for v in violations]
        super().__init__("\n".join(lines))
