"""The gate: what vLLM's worker and scheduler report of a pass, as the engine's `Steps` are told of it.

The same `Engine` scores and releases tokens here as without vLLM (`monitor.model.engine.engine`). This module turns
vLLM's passes into its spans: before the forward pass, once the rows are laid out, and after it, before any token that
was drawn becomes an output. With async scheduling vLLM lays a pass out while the one before it runs.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from monitor.model.tap.span import Span
from monitor.model.tap.transfers import HostCopies, to_device
from monitor.vllm.prefixes import GrowingBlock, PrefixRows, Run, TapMemory, TapRows
from monitor.vllm.scorer import ServedSteps

_MARK = "\x00"
_SHOWN = 8192
"""Rows of cached tokens that the rules are shown at once."""


@dataclass(frozen=True, slots=True)
class PassPart:
    """The tokens of one request in a pass of vLLM. Parts lie in the pass one behind the other."""

    name: str
    """vLLM's id of the request."""
    count: int
    position: int
    """Position of the first of its tokens in the sequence."""


@dataclass(eq=False)
class _LaidOut:
    """A pass that was laid out and is not over."""

    parts: Sequence[PassPart]
    spans: list[Span]
    shared: list[bool]
    """Of the spans, whether what is read of them holds for other requests."""
    layout: Hashable
    """What the columns of its rows mean."""
    back: set[str] = field(default_factory=set)
    """Names of requests whose rows in it were taken back."""
    copies: HostCopies | None = None
    ids: Tensor | None = None
    """The token ids that it ran, on their way to the host; None before it was launched."""

    def ran(self) -> list[int]:
        """The token ids that it ran, in the order of its rows. Waits for them."""
        if self.copies is None or self.ids is None:
            raise RuntimeError("nobody kept what a pass ran")
        self.copies.wait()
        found: list[int] = self.ids.tolist()
        return found


class SharedBlocks(Protocol):
    """The blocks of vLLM's prefix cache that requests share."""

    def hashes(self, name: str) -> Sequence[bytes]:
        """What a request's full blocks are known by, in order."""

    def part(self, name: str, tokens: int) -> None:
        """From now on something is clamped for a request, which has run `tokens`: share no further block of it."""


class Gate:
    """The requests that vLLM runs and its passes. `admit` and `withdraw` may be called from any thread."""

    def __init__(self, steps: ServedSteps, memory: TapMemory | None = None) -> None:
        """With `memory`, what is read is kept for vLLM's prefix cache, once `share` says how."""
        self._steps, self._memory = steps, memory
        self._blocks: SharedBlocks | None = None
        self._rows: PrefixRows | None = None
        self._due: dict[str, tuple[int, TapRows]] = {}
        """By vLLM's name, position and rows of cached tokens that a request may take and no rule has seen."""
        self._growing: dict[str, GrowingBlock] = {}
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._names: dict[str, str] = {}
        """By request id, what vLLM calls a request: a new name each time, though an id may come again."""
        self._of: dict[str, str] = {}
        """Request ids by vLLM's names."""
        self._known: dict[str, int] = {}
        """By vLLM's name, the tokens that a request has: those of its prompt, and all that were or are being drawn."""
        self._gone: list[str] = []
        """Names of requests that vLLM is still to drop."""
        self._returned: list[str] = []
        """Names of requests that vLLM is still to take back."""
        self._laid: _LaidOut | None = None
        """The pass that was laid out and not launched."""
        self._in_flight: deque[_LaidOut] = deque()
        """Passes that were launched and are not over, in order."""

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

    def take_returned(self) -> list[str]:
        """Names of requests, since the last time, whose rows in passes that are not over are void: run them again.

        The thread that runs passes.
        """
        returned, self._returned = self._returned, []
        return returned

    def request_of(self, name: str) -> str | None:
        """The request that vLLM knows by a name; None where it was withdrawn or never admitted."""
        return self._of.get(name)

    def lay_out(self, parts: Sequence[PassPart], _ids: Sequence[int]) -> None:
        """A pass is about to run these tokens: whose they are, in the order of its rows.

        What it runs is not taken from the ids that the host knows, but from those on the device (`launched`).
        """
        spans: list[Span] = []
        first = 0
        for part in parts:
            draws = self._draws(part)
            spans.append(Span(self._of.get(part.name, part.name), first, part.count, part.position, draws))
            first += part.count
        # Asked before the pass: what it decides holds from the next one on.
        keeps = self._rows is not None
        shared = [keeps and self._steps.plain(span.request_id) for span in spans]
        self._steps.before(spans, first)
        layout = self._memory.layout() if keeps and self._memory is not None else None
        self._laid = _LaidOut(parts, spans, shared, layout)

    def draw(self, logits: Tensor) -> Tensor | None:
        """Next tokens `[requests]` of a pass from logits `[requests, vocabulary]`; None between passes.

        Requests whose prompt has not run to its end get 0, which vLLM discards.
        """
        if self._laid is None:
            return None
        drawing = [number for number, span in enumerate(self._laid.spans) if span.draws]
        if len(drawing) == len(logits):
            return self._steps.draw(logits.float())
        chosen = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
        if drawing:
            rows = to_device(drawing, torch.int64, logits.device)
            chosen[rows] = self._steps.draw(logits[rows].float())
        return chosen

    def launched(self, ran: Tensor) -> None:
        """The pass is on its way, its tokens were drawn, and it runs the first ids of `ran` `[rows or more]`.

        Another may be laid out before `passed` is called for it. Does nothing where none was laid out.
        """
        if (now := self._laid) is None:
            return
        self._laid = None
        rows = sum(part.count for part in now.parts)
        now.copies = HostCopies(ran.device)
        now.ids = now.copies.add(ran[:rows])
        now.copies.sent()
        self._steps.launched()
        self._in_flight.append(now)

    def passed(self, drawn: Mapping[str, Sequence[int]]) -> None:
        """The first of the passes on their way is over and drew these tokens, by vLLM's names.

        Nothing of it has left vLLM yet. Raises RuntimeError where the pass was never laid out, or drew otherwise than
        expected: then nobody can say what was scored.
        """
        if not self._in_flight:
            raise RuntimeError("vLLM ran a pass that was not laid out before the monitor")
        now, ids = self._in_flight[0], self._in_flight[0].ran()
        self._in_flight.popleft()
        self._steps.landed()
        tokens = [self._drew(now, part, span, drawn) for part, span in zip(now.parts, now.spans, strict=True)]
        if not now.spans:
            return
        if self._rows is not None:
            self._keep(now, ids, self._rows)
        self._steps.after(now.spans, tokens, ids)
        back = set(self._steps.taken_back())
        for part, span, shared in zip(now.parts, now.spans, now.shared, strict=True):
            if part.name not in self._known:
                continue
            again = span.request_id in back
            if again or (shared and not self._steps.plain(span.request_id)):
                self._part(part.name, part.position + part.count)
            if again:
                self._take_back(part.name)

    def share(self, blocks: SharedBlocks, size: int, most: int) -> None:
        """Take note that vLLM has a prefix cache of at most so many blocks of `size` tokens.

        Raises RuntimeError where the gate has no memory.
        """
        if self._memory is None:
            raise RuntimeError("vLLM caches prefixes, and nobody keeps what was read of them")
        self._blocks, self._rows = blocks, PrefixRows(most, size)

    def reach(self, name: str, blocks: Sequence[bytes], tokens: int) -> int:
        """How many of the first tokens of a request may be taken from vLLM's cache, where it holds `tokens` of them.

        Those are the ones that the rules have seen, or that `show_hits` can show them: what was read of them is kept.
        """
        request = self._of.get(name)
        self._due.pop(name, None)
        if request is None or self._rows is None or self._memory is None:
            return 0
        scored, size = self._steps.scored(request), self._rows.size
        if tokens <= scored:
            return tokens
        seen = scored // size
        if not self._steps.plain(request):
            return seen * size
        # Those of the first blocks may be kept no more, and were shown.
        rows = self._rows.first(blocks[seen : tokens // size], self._memory.layout())
        end = (seen + len(rows)) * size
        if end > scored:
            self._due[name] = scored, TapRows.joined(rows).part(scored - seen * size, len(rows) * size)
        return end

    def show_hits(self, scheduled: Collection[str]) -> None:
        """Show the rules what was read of the tokens that scheduled requests take from vLLM's cache.

        Before their pass is laid out: what is clamped from there on, vLLM has not run yet.
        """
        due = [(name, *self._due.pop(name)) for name in list(self._due) if name in scheduled]
        batch, room = list[tuple[str, int, TapRows]](), _SHOWN
        for name, position, rows in due:
            while len(rows) > room:
                batch.append((name, position, rows.part(0, room)))
                position, rows = position + room, rows.part(room, len(rows))
                self._show(batch)
                batch, room = [], _SHOWN
            batch.append((name, position, rows))
            room -= len(rows)
            if not room:
                self._show(batch)
                batch, room = [], _SHOWN
        self._show(batch)
        for name, position, rows in due:
            request = self._of.get(name)
            if request is not None and not self._steps.plain(request):
                self._part(name, position + len(rows))

    def _show(self, batch: Sequence[tuple[str, int, TapRows]]) -> None:
        """Show rows of requests, each with the position of its first token."""
        spans: list[Span] = []
        first = 0
        for name, position, rows in batch:
            spans.append(Span(self._of.get(name, name), first, len(rows), position, draws=False))
            first += len(rows)
        if spans and self._memory is not None:
            found = TapRows.joined([rows for _, _, rows in batch])
            self._steps.replay(spans, self._memory.taken(found), list(found.ids))

    def _draws(self, part: PassPart) -> bool:
        """True where a pass draws a token behind a part, which its request has from then on."""
        with self._lock:
            draws = part.position + part.count == self._known.get(part.name)
            if draws:
                self._known[part.name] += 1
        return draws

    def _part(self, name: str, tokens: int) -> None:
        """Something is clamped for a request from this position on, or otherwise: its blocks are its own."""
        self._growing.pop(name, None)
        if self._blocks is not None:
            self._blocks.part(name, tokens)

    def _take_back(self, name: str) -> None:
        """What passes on their way do for a request is void."""
        for further in [*self._in_flight, *([] if self._laid is None else [self._laid])]:
            for part, span in zip(further.parts, further.spans, strict=True):
                if part.name == name:
                    further.back.add(name)
                    with self._lock:
                        if span.draws and name in self._known:
                            self._known[name] -= 1
        self._returned.append(name)

    def _keep(self, now: _LaidOut, ids: Sequence[int], kept: PrefixRows) -> None:
        """Keep what the pass read, block by block, of tokens that nothing was clamped for."""
        assert self._memory is not None
        assert self._blocks is not None
        layout = self._memory.layout()
        if layout != now.layout:
            return  # another policy set came while the pass ran
        read = TapRows.of(self._steps.taken(len(ids)), ids)
        # A block grows over many passes, and would hold all of each.
        large = len(ids) > 2 * len(now.spans)
        for part, span, shared in zip(now.parts, now.spans, now.shared, strict=True):
            if not shared or part.name not in self._known or part.name in now.back:
                continue
            growing = self._growing.get(part.name)
            if growing is None:
                growing = self._growing[part.name] = GrowingBlock(part.position)
            run = Run(read, span.first, span.count)
            for number, block in growing.add(part.position, run.alone() if large else run, layout, kept.size):
                hashes = self._blocks.hashes(part.name)
                if number < len(hashes):
                    kept.put(hashes[number], layout, block)

    def _drew(
        self, now: _LaidOut, part: PassPart, span: Span, drawn: Mapping[str, Sequence[int]]
    ) -> int | None:
        found = drawn.get(part.name, ())
        if part.name not in self._known or part.name in now.back:
            return None
        if len(found) != span.draws:
            raise RuntimeError(f"vLLM drew {len(found)} tokens where {int(span.draws)} was expected")
        return int(found[0]) if span.draws else None
