"""The trace that a sample belongs to, so that a graph leads to a trace.

Knows one context variable. Does not know who traces, or whether anybody does: whoever opens a span sets `trace_id`
to its trace id, and samples that are counted inside carry it. Only OpenMetrics shows exemplars.
"""

from __future__ import annotations

from contextvars import ContextVar

trace_id: ContextVar[str] = ContextVar("sae_monitor_trace_id", default="")
"""32 hexadecimal digits of the trace that this task serves; empty where nothing is traced."""

_DIGITS = frozenset("0123456789abcdef")


def exemplar() -> dict[str, str] | None:
    """`{"trace_id": …}` of the current task; None where there is no trace, or what is set is no trace id.

    Read it on the task that serves the request: context variables do not follow work onto other threads.
    """
    found = trace_id.get()
    return {"trace_id": found} if len(found) == 32 and _DIGITS.issuperset(found) else None
