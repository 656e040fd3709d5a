"""The gate: what vLLM's worker and scheduler report of a pass, as the engine's `Steps` are told of it.

The same `Engine` scores and releases tokens here as without vLLM (`monitor.model.engine.engine`). This module turns
vLLM's passes into its spans: before the forward pass, once the rows are laid out, and after it, before any token that
was drawn becomes an output.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from monitor.model.tap.span import Span
from monitor.vllm.prefixes import GrowingBlock, PrefixRows, Run, TapMemory, TapRows
from monitor.vllm.scorer import ServedSteps

_MARK = "\x00"


@dataclass(frozen=True, slots=True)
class PassPart:
    """The tokens of one request in a pass of vLLM. Parts lie in the pass one behind the other."""

    name: str
    """vLLM's id of the request."""
    count: int
    position: int
    """Position of the first of its tokens in the sequence."""


class SharedBlocks(Protocol):
    """The blocks of vLLM's prefix cache that requests share."""

    def hashes(self, name: str) -> Sequence[bytes]:
        """What a request's full blocks are known by, in order."""

    def part(self, name: str, tokens: int) -> None:
        """From now on something is clamped for a request, which has run `tokens`: share no further block of it."""


class Gate:
    """The requests that vLLM runs and the pass that it is in. `admit` and `withdraw` may be called from any thread."""

    def __init__(self, steps: ServedSteps, memory: TapMemory | None = None) -> None:
        """With `memory`, what is read is kept for vLLM's prefix cache, once `share` says how."""
        self._steps, self._memory = steps, memory
        self._blocks: SharedBlocks | None = None
        self._rows: PrefixRows | None = None
        self._due: dict[str, list[TapRows]] = {}
        """By vLLM's name, the rows of a request's first tokens that vLLM took from its cache."""
        self._growing: dict[str, GrowingBlock] = {}
        self._layout: Hashable = None
        """What the columns of the pass mean."""
        self._shared: list[bool] = []
        """Of the spans of the pass, whether what is read of them holds for other requests."""
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
        self._parts: Sequence[PassPart] | None = None
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
        """Names of requests that were withdrawn since the last time. The thread that runs passes."""
        with self._lock:
            gone, self._gone = self._gone, []
        for name in gone:
            # Here and not in `withdraw`, which may come while a pass of this thread is keeping its rows.
            self._due.pop(name, None)
            self._growing.pop(name, None)
        return gone

    def request_of(self, name: str) -> str | None:
        """The request that vLLM knows by a name; None where it was withdrawn or never admitted."""
        return self._of.get(name)

    def lay_out(self, parts: Sequence[PassPart], ids: Sequence[int]) -> None:
        """A pass is about to run these tokens: whose they are and their ids, in the order of its rows."""
        if self._due:
            self._replay(parts)
        spans: list[Span] = []
        first = 0
        for part in parts:
            known = self._known.get(part.name)
            draws = known is not None and part.position + part.count == known
            spans.append(Span(self._of.get(part.name, part.name), first, part.count, part.position, draws))
            first += part.count
        self._parts, self._spans, self._ids = parts, spans, ids
        # Asked before the pass: what it decides holds from the next one on.
        self._shared = (
            [self._steps.plain(span.request_id) for span in spans] if self._rows is not None else []
        )
        self._steps.before(spans, first)
        if self._rows is not None and self._memory is not None:
            self._layout = self._memory.layout()

    def draw(self, logits: Tensor) -> Tensor | None:
        """Next tokens `[requests]` of a pass from logits `[requests, vocabulary]`; None between passes.

        Requests whose prompt has not run to its end get 0, which vLLM discards.
        """
        if self._parts is None:
            return None
        drawing = [number for number, span in enumerate(self._spans) if span.draws]
        if len(drawing) == len(logits):
            return self._steps.draw(logits.float())
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
        if not spans:
            return
        if self._rows is not None:
            self._keep(parts, spans, ids, self._rows)
        self._steps.after(spans, tokens, ids)
        if self._blocks is not None:
            for part, span, shared in zip(parts, spans, self._shared, strict=True):
                if shared and part.name in self._known and not self._steps.plain(span.request_id):
                    self._growing.pop(part.name, None)
                    self._blocks.part(part.name, part.position + part.count)

    def share(self, blocks: SharedBlocks, size: int, most: int) -> None:
        """Take note that vLLM has a prefix cache of at most so many blocks of `size` tokens.

        Raises RuntimeError where the gate has no memory.
        """
        if self._memory is None:
            raise RuntimeError("vLLM caches prefixes, and nobody keeps what was read of them")
        self._blocks, self._rows = blocks, PrefixRows(most, size)

    def reach(self, name: str, blocks: Sequence[bytes], tokens: int) -> int:
        """How many of the first tokens of a request may be taken from vLLM's cache, where it holds `tokens` of them.

        Those are the ones that the rules have seen, or can see without a pass over them.
        """
        request = self._of.get(name)
        self._due.pop(name, None)
        if request is None or self._rows is None or self._memory is None:
            return 0
        scored = self._steps.scored(request)
        if tokens <= scored:
            return tokens
        if scored:
            return 0  # evicted while its prompt ran, which is seldom: all of it runs again
        rows = self._rows.first(blocks[: tokens // self._rows.size], self._memory.layout())
        if rows:
            self._due[name] = rows
        return len(rows) * self._rows.size

    def _replay(self, parts: Sequence[PassPart]) -> None:
        """Show the rules what was read of the tokens that vLLM took from its cache, before their requests go on."""
        assert self._memory is not None
        waiting: list[tuple[str, int, TapRows]] = []
        for part in parts:
            request, rows = self._of.get(part.name), self._due.pop(part.name, None)
            # At position 0 vLLM runs it all: it was preempted before its first pass, and its blocks were evicted.
            if rows and part.position and request is not None and self._steps.scored(request) == 0:
                waiting.append((request, 0, TapRows.joined(rows).part(0, part.position)))
        while waiting:
            waiting = self._replay_pass(waiting, self._memory)

    def _replay_pass(
        self, waiting: Sequence[tuple[str, int, TapRows]], memory: TapMemory
    ) -> list[tuple[str, int, TapRows]]:
        """Show as many rows as a pass may have; the rest, each with the position of its first token."""
        spans: list[Span] = []
        shown: list[TapRows] = []
        rest: list[tuple[str, int, TapRows]] = []
        # No pass may have run on this thread yet: `before` takes the buffers into use.
        self._steps.before([], 0)
        free, first = memory.most, 0
        for request, position, rows in waiting:
            count = min(free - first, len(rows))
            if count:
                spans.append(Span(request, first, count, position, draws=False))
                shown.append(rows.part(0, count))
                first += count
            if count < len(rows):
                rest.append((request, position + count, rows.part(count, len(rows))))
        self._steps.before(spans, first)
        for span, rows in zip(spans, shown, strict=True):
            memory.write(span.first, rows)
        self._steps.after(spans, [None] * len(spans), [token for rows in shown for token in rows.ids])
        return [item for item in rest if item[0] in self._names]

    def _keep(
        self, parts: Sequence[PassPart], spans: Sequence[Span], ids: Sequence[int], kept: PrefixRows
    ) -> None:
        """Keep what the pass read, block by block, of tokens that nothing was clamped for."""
        assert self._memory is not None
        assert self._blocks is not None
        layout = self._memory.layout()
        if layout != self._layout:
            return  # another policy set came while the pass ran
        read = TapRows.of(self._steps.taken(len(ids)), ids)
        # A block grows over many passes, and would hold all of each.
        large = len(ids) > 2 * len(spans)
        for part, span, shared in zip(parts, spans, self._shared, strict=True):
            if not shared or part.name not in self._known:
                continue
            growing = self._growing.get(part.name)
            if growing is None:
                growing = self._growing[part.name] = GrowingBlock(part.position)
            run = Run(read, span.first, span.count)
            for number, block in growing.add(part.position, run.alone() if large else run, layout, kept.size):
                hashes = self._blocks.hashes(part.name)
                if number < len(hashes):
                    kept.put(hashes[number], layout, block)

    def _drew(self, part: PassPart, span: Span, drawn: Mapping[str, Sequence[int]]) -> int | None:
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
