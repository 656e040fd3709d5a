"""A rank beside the first, in a process of its own: it computes its part of each pass and reads nothing.

Started by `monitor.vllm.ranks` as `python -m monitor.vllm.other_rank LINE RANK`. It does what the first rank tells it
over the line, edits what that one edits, and ends when the line does.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import torch
from torch import Tensor

from monitor.telemetry.logs import places
from monitor.vllm import station
from monitor.vllm.gate import PassPart
from monitor.vllm.ranks import END, START, RankCall, RankStart, received, send
from monitor.vllm.shared_edits import PassOrder, SharedEdits, StreamPrints, mark_of

_ALIVE_SECONDS = 2.0
"""How often to look whether the first rank lives."""
_RUNS = ("execute_model", "sample_tokens")
"""Methods of passes: their errors may quote callers, and their results are the first rank's."""

T = TypeVar("T")


class OrderLine:
    """What the first rank sends, in order. This process ends where that one has ended, whatever it is doing."""

    def __init__(self, line: Connection, gone: Callable[[], None] = lambda: os._exit(1)) -> None:
        """`gone` is called, on another thread, once the first rank has ended."""
        self._line, self._gone = line, gone
        self._came: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._parent = os.getppid()
        threading.Thread(target=self._listen, name="first rank", daemon=True).start()

    def take(self, kind: type[T]) -> T:
        """The next thing that was sent. Raises RuntimeError where it is of another kind."""
        found = self._came.get()
        if not isinstance(found, kind):
            raise RuntimeError(f"the first rank sent a {type(found).__name__} and not a {kind.__name__}")
        return found

    def answer(self, value: object, *, failed: bool = False) -> None:
        """Say what came of a call, or why nothing did."""
        send(self._line, (not failed, value))

    def _listen(self) -> None:
        try:
            while True:
                while not self._line.poll(_ALIVE_SECONDS):
                    if os.getppid() != self._parent:
                        raise EOFError
                self._came.put(received(self._line))
        except (EOFError, OSError):
            self._gone()


@dataclass(eq=False)
class OtherSeat:
    """What the operators of a model do on this rank: edit what the first rank edits."""

    layer: int
    later_layers: tuple[int, ...]
    shared: SharedEdits

    def run(self, x: Tensor, layer: int) -> tuple[Tensor, Tensor] | None:
        """As `TappedModel.run`."""
        if layer != self.layer or not self.shared.sharing:
            return None
        return self.shared.share(x, None)


class ToldGate:
    """Stands where the first rank has its gate: what it decides was told."""

    def __init__(self, orders: OrderLine, shared: SharedEdits) -> None:
        self._orders, self._shared = orders, shared
        self._draws = False

    def lay_out(self, parts: Sequence[PassPart], ids: Sequence[int]) -> None:
        """Begin a pass. Raises RuntimeError where the first rank has laid out another."""
        order = self._orders.take(PassOrder)
        if order.mark != mark_of(parts, ids):
            raise RuntimeError("it laid out another pass than the first rank")
        self._shared.begin(order.rows, clamping=order.clamping)
        self._draws = True

    def draw(self, logits: Tensor) -> Tensor | None:
        """What the first rank has drawn, `[requests]`; None between passes."""
        if not self._draws:
            return None
        self._draws = False
        return torch.tensor(self._orders.take(list), dtype=torch.int64, device=logits.device)

    def launched(self, ran: Tensor) -> None:
        """Nothing: the first rank keeps what the pass ran."""


class RankWorker:
    """The worker of this rank, and what it is told."""

    def __init__(self, orders: OrderLine, rank: int) -> None:
        self._orders, self._rank = orders, rank
        self._worker: Any = None
        self._shared: SharedEdits | None = None

    def serve(self) -> None:
        """Do what comes, until the first rank says that there is no more."""
        while (call := self._orders.take(RankCall)).method != END:
            try:
                self._orders.answer(self._done(call))
            except Exception as error:  # noqa: BLE001  (the first rank ends all ranks, and says why)
                where = places(error.__traceback__)[-1:]
                what = "" if call.method in _RUNS else f" {error}"
                self._orders.answer(f"{type(error).__name__}{what} at {where}", failed=True)

    def _done(self, call: RankCall) -> object:
        if call.method == START:
            (start,) = call.args
            self._start(start)
            return None
        from monitor.vllm.names import run_method

        found = run_method(self._worker, call.method, call.args, call.kwargs)
        if call.method not in _RUNS:
            return found
        return self._prints() if call.method == "execute_model" else None

    def _prints(self) -> StreamPrints | None:
        assert self._shared is not None
        return self._shared.end()

    def _start(self, start: RankStart) -> None:
        from monitor.vllm.names import other_worker, sum_over_ranks

        self._shared = SharedEdits(sum_over_ranks, static=start.static)
        seat = OtherSeat(start.layer, start.later_layers, self._shared)
        here = station.Station(seat, ToldGate(self._orders, self._shared))
        with station.opened(here):
            self._worker = other_worker(start.config, self._rank, start.rendezvous)


def main() -> None:
    """Run the rank that the command line names."""
    line, rank = (int(given) for given in sys.argv[1:3])
    # The first rank ends this process, also where a signal came to both and the first has requests to see off.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    RankWorker(OrderLine(Connection(line)), rank).serve()
    # At once: nothing here outlives the first rank, and taking the model down in order takes seconds.
    os._exit(0)


if __name__ == "__main__":
    main()
