"""The executor for several ranks: the first in this process, where the monitor is, and each other in one of its own.

vLLM's own puts every rank into a process of its own. Here what the tap of the first rank reads stays where it is
scored. After each pass every rank must have edited the same rows, and have the same residual stream behind the tap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from monitor.errors import ConfigurationError
from monitor.vllm import station
from monitor.vllm.gate import PassPart
from monitor.vllm.names import (
    UniProcExecutor,
    forget_rendezvous,
    forget_segments,
    leave_ranks,
    pass_seconds,
    portable,
    share_cores,
    sum_over_ranks,
)
from monitor.vllm.operator import Seat
from monitor.vllm.ranks import START, RankCall, Ranks, RankStart
from monitor.vllm.shared_edits import PassOrder, SharedEdits, StreamPrints, mark_of

_LONG_SECONDS = 3600.0
"""For what is done once: loading and compiling."""
_RUNS = ("execute_model", "sample_tokens")


class TellingGate:
    """The gate of the first rank, which tells the others what it decides."""

    def __init__(self, gate: station.PassGate, seat: Seat, shared: SharedEdits, ranks: Ranks) -> None:
        self._gate, self._seat, self._shared, self._ranks = gate, seat, shared, ranks

    def lay_out(self, parts: Sequence[PassPart], ids: Sequence[int]) -> None:
        """As `Gate.lay_out`."""
        self._gate.lay_out(parts, ids)
        buffers = self._seat.tap.current()
        clamping = buffers is not None and buffers.clamping
        self._shared.begin(len(ids), clamping=clamping)
        self._ranks.tell(PassOrder(mark_of(parts, ids), len(ids), clamping))

    def draw(self, logits: Tensor) -> Tensor | None:
        """As `Gate.draw`."""
        chosen = self._gate.draw(logits)
        if chosen is not None:
            self._ranks.tell(chosen.tolist())
        return chosen

    def launched(self, ran: Tensor) -> None:
        """As `Gate.launched`."""
        self._gate.launched(ran)


class RankedExecutor(UniProcExecutor):  # type: ignore[misc]
    """Runs a model over several ranks of this machine."""

    def _init_executor(self) -> None:
        here, config = station.found(), self.vllm_config
        seat, count = here.seat, config.parallel_config.world_size
        if not isinstance(seat, Seat):
            raise ConfigurationError("the executor of several ranks must run where the tap is")
        leave_ranks()  # of a core that this process had before
        self._shared = seat.shared = SharedEdits(sum_over_ranks, static=here.static)
        self._ranks = Ranks(count, here.failed, settings=share_cores(count))
        self._rendezvous, *_ = super()._distributed_args()
        gate = TellingGate(here.gate, seat, self._shared, self._ranks)
        start = RankStart(config, self._rendezvous, seat.layer, seat.later_layers, here.static)
        try:
            with station.opened(replace(here, gate=gate)):
                self._ranks.run(RankCall(START, (start,)), super()._init_executor, _LONG_SECONDS)
        except BaseException:
            self._ranks.end()
            raise
        finally:
            forget_segments(self._rendezvous)

    def _distributed_args(self) -> tuple[str, int, int]:
        return self._rendezvous, 0, 0

    def collective_rpc(
        self,
        method: Any,
        timeout: float | None = None,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        non_block: bool = False,
        single_value: bool = False,
    ) -> Any:
        """As vLLM's, which runs a method of the worker of every rank: here, and told to the others."""
        call = RankCall(portable(method), args, kwargs or {})
        own = partial(super().collective_rpc, method, None, args, kwargs, False, True)
        found = self._pass(call, own) if method in _RUNS else self._everywhere(call, own, timeout)
        value = found[0] if single_value else found
        if not non_block:
            return value
        done: Future[Any] = Future()
        done.set_result(value)
        return done

    def check_health(self) -> None:
        """Raise what ended the other ranks."""
        if self._ranks.failure is not None:
            raise self._ranks.failure

    def shutdown(self) -> None:
        """End all ranks."""
        self._ranks.end()
        super().shutdown()
        forget_rendezvous(self._rendezvous)
        leave_ranks()

    @property
    def rank_processes(self) -> list[int]:
        """Process ids of the other ranks, in order."""
        return self._ranks.processes

    def _everywhere(self, call: RankCall, own: Callable[[], Any], timeout: float | None) -> list[Any]:
        mine, others = self._ranks.run(call, own, timeout or _LONG_SECONDS)
        return [mine, *others]

    def _pass(self, call: RankCall, own: Callable[[], Any]) -> list[Any]:
        """A part of a pass. Raises RankFailed where a rank did not do what this one did."""
        mine, prints = self._ranks.run(call, own, pass_seconds())
        if call.method == "execute_model":
            self._compare(self._shared.end(), prints)
        return [mine]

    def _compare(self, mine: StreamPrints | None, others: Sequence[StreamPrints | None]) -> None:
        for rank, its in enumerate(others, 1):
            if mine is None or its is None:
                why = "" if mine is its else "ran a pass that the first rank did not, or the other way round"
            else:
                why = mine.why_apart(its)
            if why:
                self._ranks.fail(f"rank {rank} {why}")
