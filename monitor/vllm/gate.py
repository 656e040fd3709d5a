"""The gate: what vLLM's worker and scheduler report of a pass, as the engine's `Steps` are told of it.

The same `Engine` scores and releases tokens here as without vLLM (`monitor.model.engine.engine`). This module turns
vLLM's passes into its spans: before the forward pass, once the rows are laid out, and after it, before any token that
was drawn becomes an output.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from monitor.model.engine.paged import Steps
from monitor.model.tap.span import Span
from monitor.vllm.names import Part

_MARK = "\x00"


class Gate:
    """The requests that vLLM runs and the pass that it is in. `admit` and `withdraw` may be called from any thread."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._names: dict[str, str] = {}
        """By request id, what vLLM calls a request: a new name each time, though an id may come again."""
        self._of: dict[str, str] = {}
        """Request ids by vLLM's names."""
        self._known: dict[str, int] = {}
        """By vLLM's name, the tokens that a request has: those of its prompt and all that were drawn."""
        self._gone: list[str] = []
        """Names of requests that vLLM is still to drop."""
        self._parts: Sequence[Part] | None = None
        """Of the pass that was laid out and is not over; None between passes."""
        self._spans: list[Span] = []
        self._ids: Sequence[int] = ()

    def admit(self, request_id: str, tokens: int, name: str | None = None) -> str:
        """Take in a request whose prompt has so many tokens. Its name in vLLM, which is `name` where vLLM gave one."""
        with self._lock:
            name = name or f"{request_id}{_MARK}{next(self._numbers)}"
            self._names[request_id], self._of[name], self._known[name] = name, request_id, tokens
            return name

    def withdraw(self, request_id: str) -> None:
        """Forget a request, and have vLLM drop it before the next pass. An unknown id is ignored."""
        with self._lock:
            name = self._names.pop(request_id, None)
            if name is not None:
                del self._of[name], self._known[name]
                self._gone.append(name)

    def take_gone(self) -> list[str]:
        """Names of requests that were withdrawn since the last time."""
        with self._lock:
            gone, self._gone = self._gone, []
            return gone

    def request_of(self, name: str) -> str | None:
        """The request that vLLM knows by a name; None where it was withdrawn or never admitted."""
        return self._of.get(name)

    def lay_out(self, parts: Sequence[Part], ids: Sequence[int]) -> None:
        """A pass is about to run these tokens: whose they are and their ids, in the order of its rows."""
        spans: list[Span] = []
        first = 0
        for part in parts:
            known = self._known.get(part.name)
            draws = known is not None and part.position + part.count == known
            spans.append(Span(self._of.get(part.name, part.name), first, part.count, part.position, draws))
            first += part.count
        self._parts, self._spans, self._ids = parts, spans, ids
        self._steps.before(spans, first)

    def draw(self, logits: Tensor) -> Tensor | None:
        """Next tokens `[requests]` of a pass from logits `[requests, vocabulary]`; None between passes.

        Requests whose prompt has not run to its end get 0, which vLLM discards.
        """
        if self._parts is None:
            return None
        drawing = [number for number, span in enumerate(self._spans) if span.draws]
        chosen = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
        if drawing:
            rows = torch.tensor(drawing, device=logits.device)
            chosen[rows] = self._steps.draw(logits[rows].float())
        return chosen

    def passed(self, drawn: Mapping[str, Sequence[int]]) -> None:
        """The pass is over and drew these tokens, by vLLM's names. Nothing of it has left vLLM yet.

        Raises RuntimeError where the pass was never laid out, or drew otherwise than expected: then nobody can say
        what was scored.
        """
        if self._parts is None:
            raise RuntimeError("vLLM ran a pass that was not laid out before the monitor")
        parts, spans, ids = self._parts, self._spans, self._ids
        self._parts = None
        tokens = [self._drew(part, span, drawn) for part, span in zip(parts, spans, strict=True)]
        if spans:
            self._steps.after(spans, tokens, ids)

    def _drew(self, part: Part, span: Span, drawn: Mapping[str, Sequence[int]]) -> int | None:
        found = drawn.get(part.name, ())
        with self._lock:
            if part.name not in self._known:
                return None
            if len(found) != span.draws:
                raise RuntimeError(f"vLLM drew {len(found)} tokens where {int(span.draws)} was expected")
            if not span.draws:
                return None
            self._known[part.name] += 1
        return int(found[0])
