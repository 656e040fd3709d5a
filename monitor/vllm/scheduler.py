"""The scheduler: vLLM's own, which shows each pass to the gate before its tokens become outputs.

Give it as `scheduler_cls`.
"""

from __future__ import annotations

from typing import Any

from monitor.vllm import station
from monitor.vllm.names import CachedBlocks, RequestStatus, Scheduler, drawn_tokens, refuse_configuration


class GatedScheduler(Scheduler):  # type: ignore[misc]
    """A scheduler of vLLM whose requests are run as long as the gate lets them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        refuse_configuration(self.vllm_config)
        self._gate = station.found().gate
        if self.cache_config.enable_prefix_caching:
            cached = CachedBlocks(self, self._gate.reach)
            self._gate.share(cached, cached.size, cached.most)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """Lay out a pass, without the requests that the gate has ended."""
        self._drop()
        return super().schedule(*args, **kwargs)

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        """Have what a pass read scored, and then take in what it drew."""
        if scheduler_output.total_num_scheduled_tokens:
            self._gate.passed(drawn_tokens(model_runner_output))
        self._drop()
        return super().update_from_output(scheduler_output, model_runner_output)

    def _drop(self) -> None:
        if gone := self._gate.take_gone():
            # Not by a subclass's: those that the gate has ended may have outputs that are still to leave.
            Scheduler.finish_requests(self, gone, RequestStatus.FINISHED_ABORTED)
