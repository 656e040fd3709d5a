"""The scheduler for `vllm serve --scheduler-cls monitor.plugin.scheduler.HostedScheduler`.

A request of vLLM waits until the monitor has started its rules. Of what it draws, a token leaves once it ran and was
scored, so always one step later than without a monitor; the last output leaves once the decision is in the log.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog

from monitor.plugin.host import Host, Verdicted, host_for
from monitor.plugin.refusals import Refusal
from monitor.records import FinishReason as Reason
from monitor.vllm import station
from monitor.vllm.names import (
    EngineCoreOutput,
    EngineCoreOutputs,
    FinishReason,
    core_of,
    end_ids,
    make_request,
    wake,
    why_refused,
)
from monitor.vllm.parts import GatedScheduler

_log = structlog.get_logger(__name__)


@dataclass(eq=False)
class HeldRequest:
    """A request of vLLM, and what of its response has not left yet."""

    request: Any
    refused: str = ""
    """Why it is not run; empty where it is."""
    drawn: list[int] = field(default_factory=list)
    sent: int = 0
    first: Any = None
    """Statistics of its prompt, for its first output."""
    events: list[Any] = field(default_factory=list)
    end: Any = None
    """vLLM's last output of it; None while vLLM has not ended it."""

    def take(self, output: Any) -> None:
        """Keep what vLLM would have sent."""
        self.drawn += output.new_token_ids
        self.first = self.first or output.prefill_stats
        self.events += output.events or ()
        if output.finish_reason is not None:
            self.end = output

    def output(self, released: int, ended: Verdicted | None) -> Any:
        """What may leave now; None where nothing may."""
        if self.refused:
            return self._made([], FinishReason.ERROR, str(Refusal(400, self.refused)))
        if ended is not None and ended.reason is Reason.ERROR:
            return self._made([], FinishReason.ERROR, str(ended.why))
        tokens = self.drawn[self.sent : released]
        if ended is None:
            return self._made(tokens) if tokens else None
        if ended.reason is Reason.POLICY:
            return self._made(tokens, FinishReason.ABORT, f"policy: {ended.why}")
        if self.end is None:
            return self._made(tokens, FinishReason.ABORT)
        if self.end.finish_reason == FinishReason.STOP:
            # vLLM takes the last token of a text that stopped for the one that ends it, and does not show it.
            tokens = [*tokens, *self.drawn[-1:]]
        return self._made(tokens, self.end.finish_reason, self.end.stop_reason)

    def _made(self, tokens: list[int], reason: Any = None, stop: Any = None) -> Any:
        self.sent += len(tokens)
        made = EngineCoreOutput(
            request_id=self.request.request_id,
            new_token_ids=tokens,
            finish_reason=reason,
            stop_reason=stop,
            events=self.events or None,
            prefill_stats=self.first,
            trace_headers=self.request.trace_headers,
        )
        self.first, self.events = None, []
        return made


class HostedScheduler(GatedScheduler):
    """vLLM's scheduler with the monitor before, behind and around each pass."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._held: dict[str, HeldRequest] = {}
        self._core = core_of(sys._getframe(1))
        if self._core is None:
            raise RuntimeError("the monitor was not made by vLLM's engine core, and could not wake it")
        config = kwargs["vllm_config"] if "vllm_config" in kwargs else args[0]
        self._host: Host = host_for(config)
        self._batcher = self._host.runtime.hosted
        self._ends = self._host.runtime.special_ids | end_ids(config)
        with station.opened(self._host.station):
            super().__init__(*args, **kwargs)
        self._batcher.wake = partial(wake, self._core)
        self._batcher.used = self.get_kv_cache_usage
        self._batcher.in_pass = lambda: len(self.running)
        addresses = self._host.serve()
        _log.info("vLLM is monitored", metrics=addresses.metrics, grpc=addresses.grpc)

    def add_request(self, request: Any) -> None:
        """Take a request from vLLM's API server: it runs once its rules were started."""
        why = why_refused(request, self._ends)
        if why:
            why = f"this server is monitored and does not take {why}"
        held = self._held[request.request_id] = HeldRequest(request, why)
        if held.refused:
            _log.warning("a request was refused", request_id=request.request_id, why=held.refused)
            return
        # The last token that was asked for must run to be scored, and so one more is drawn.
        request.max_tokens += 1
        asked = request.sampling_params.extra_args
        self._host.begin(request.request_id, tuple(request.prompt_token_ids), asked)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """Lay out a pass, with what begins. Raises RuntimeError where nothing may run any more."""
        if self._batcher.failed:
            raise RuntimeError(f"the monitor does not let vLLM run: {self._batcher.failed}")
        while not self._batcher.begun.empty():
            self._begin(self._batcher.begun.get_nowait())
        return super().schedule(*args, **kwargs)

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        """Have a pass scored, and let leave what was."""
        outputs = super().update_from_output(scheduler_output, model_runner_output)
        for of_client in outputs.values():
            for output in of_client.outputs:
                self._take(output)
            of_client.outputs = []
        for name, held in list(self._held.items()):
            prompt = held.request.num_prompt_tokens
            found = held.output(self._host.released(name, prompt), self._host.ended(name))
            if found is not None:
                client = held.request.client_index
                outputs.setdefault(client, EngineCoreOutputs()).outputs.append(found)
                if found.finish_reason is not None:
                    self._forget(name)
        return outputs

    def finish_requests(self, request_ids: Any, finished_status: Any) -> Any:
        """End requests whose callers have left, or whose text holds a stop string."""
        names = self._names(request_ids)
        found = super().finish_requests(request_ids, finished_status)
        for name in names:
            if name in self._held:
                self._host.engine.finish(name, Reason.CANCELLED)
                self._forget(name)
        return found

    def has_requests(self) -> bool:
        """True while a request runs, waits, or has an output that has not left, and where vLLM is to end."""
        busy = bool(self._held) or not self._batcher.begun.empty() or bool(self._batcher.failed)
        return busy or bool(super().has_requests())

    def get_num_unfinished_requests(self) -> int:
        """Those that vLLM knows, and those that wait for the monitor."""
        waiting = sum(1 for name in self._held if name not in self.requests)
        return int(super().get_num_unfinished_requests()) + waiting

    def _begin(self, begun: Any) -> None:
        if begun.own is not None:
            ids, most = begun.own
            hasher = self._core.request_block_hasher
            request = make_request(begun.name, ids, most, shares=begun.shares, hasher=hasher)
        elif (held := self._held.get(begun.name)) is not None:
            request = held.request
            if not begun.shares:
                request.skip_reading_prefix_cache = True
                request.cache_salt = os.urandom(16).hex()
                request.block_hashes.clear()
                request.update_block_hashes()
        else:  # its caller has left meanwhile
            self._host.engine.finish(begun.name, Reason.CANCELLED)
            return
        super().add_request(request)

    def _take(self, output: Any) -> None:
        """Note what vLLM drew, and tell the engine where it found an end."""
        held = self._held.get(output.request_id)
        if held is not None:
            held.take(output)
        if output.finish_reason is None:
            return
        request = self._gate.request_of(output.request_id)
        if request is None:
            return
        if held is None or output.finish_reason in (FinishReason.ERROR, FinishReason.ABORT):
            self._batcher.lost(request)
        else:
            stopped = output.finish_reason == FinishReason.STOP
            self._host.engine.finish(request, Reason.STOP if stopped else Reason.LENGTH)

    def _forget(self, name: str) -> None:
        self._held.pop(name, None)
        self._host.forget(name)

    def _names(self, request_ids: str | Iterable[str] | None) -> list[str]:
        if request_ids is None:
            return list(self._held)
        return [request_ids] if isinstance(request_ids, str) else list(request_ids)
