"""Requests on their way into the scheduler of somebody else's vLLM, as the `Batching` of the engine."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from typing import NamedTuple

from monitor.vllm.gate import Gate
from monitor.vllm.operator import Seat
from monitor.vllm.prefixes import TapMemory
from monitor.vllm.scorer import SharedSteps


class Begun(NamedTuple):
    """A request that the engine has taken in, so that vLLM may run it."""

    name: str
    """vLLM's id."""
    shares: bool
    """False where vLLM must run all of it, and nobody else may take its keys and values."""
    own: tuple[tuple[int, ...], int] | None = None
    """Of a request of the monitor's own, its prompt and how many tokens it draws."""


class HostedBatcher:
    """Stands between the engine and vLLM's scheduler, which runs on a thread of vLLM's."""

    def __init__(self, steps: SharedSteps, seat: Seat, *, static: bool) -> None:
        self._steps, self._static = steps, static
        self.gate = Gate(steps, TapMemory(seat.tap))
        self.begun: queue.SimpleQueue[Begun] = queue.SimpleQueue()
        self._expected: set[str] = set()
        self.wake: Callable[[], None] = lambda: None
        """Has vLLM look at what begins or ends."""
        self.used: Callable[[], float] = lambda: 0.0
        """Share of vLLM's key-value cache that requests hold."""
        self.in_pass: Callable[[], int] = lambda: 0
        """Requests that vLLM runs."""
        self.failed = ""
        """Why nothing may run any more; empty while all is well."""

    @property
    def static(self) -> bool:
        """True where passes may be CUDA-graph replays."""
        return self._static

    def start(self) -> None:
        """Do nothing: vLLM runs by itself."""

    def stop(self, timeout: float) -> None:
        """Let nothing begin any more."""
        self.fail("the monitor has stopped")

    def fail(self, why: str) -> None:
        """Let nothing run any more: vLLM ends at its next step."""
        self.failed = self.failed or why
        self.wake()

    def alive(self) -> bool:
        """True while requests may run."""
        return not self.failed

    def running(self) -> int:
        """Requests that vLLM runs."""
        return self.in_pass()

    def cache_used(self) -> float:
        """Share of the key-value cache that requests hold, 0 to 1. Any thread."""
        return self.used()

    def expect(self, name: str) -> None:
        """Take note that vLLM has a request of this id, which the engine will take in under the same."""
        self._expected.add(name)

    def add(self, request_id: str, prompt_ids: Sequence[int], max_new_tokens: int) -> None:
        """Let vLLM run a request: one that it has brought, or one of the monitor's own."""
        shares = self._steps.plain(request_id)
        if request_id in self._expected:
            self._expected.discard(request_id)
            name = self.gate.admit(request_id, len(prompt_ids), request_id)
            self.begun.put(Begun(name, shares))
        else:
            name = self.gate.admit(request_id, len(prompt_ids))
            self.begun.put(Begun(name, shares, (tuple(prompt_ids), max_new_tokens + 2)))
        self.wake()

    def lost(self, request_id: str) -> None:
        """Be told that vLLM has dropped a request that was not over. Its thread."""
        self._steps.lost(request_id)

    def remove(self, request_id: str) -> None:
        """Drop a request before the next pass. Any thread."""
        self._expected.discard(request_id)
        self.gate.withdraw(request_id)
        self.wake()
