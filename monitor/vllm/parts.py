"""The parts that vLLM makes of our classes: a worker with the tap in its model, and a scheduler with the gate.

Give them as `worker_cls` and `scheduler_cls`. The worker has each pass laid out before the gate. The scheduler shows
the gate each pass before its tokens become outputs.
"""

from __future__ import annotations

from typing import Any

from monitor.vllm import station
from monitor.vllm.gate import Gate
from monitor.vllm.layers import install
from monitor.vllm.names import (
    AsyncScheduler,
    CachedBlocks,
    DrawingSampler,
    PlatformWorker,
    RequestStatus,
    Scheduler,
    drawn_tokens,
    ids_that_run,
    parts_of_pass,
    refuse_configuration,
    run_again,
    token_ids_of_pass,
    watch_passes,
)


class MonitoredWorker(PlatformWorker):  # type: ignore[misc]
    """A worker of vLLM whose model is tapped."""

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """Load the model, install the tap, and have each pass laid out before the gate."""
        here = self._here = station.found()
        station.salt(self.vllm_config, here.seat)
        super().load_model(*args, **kwargs)
        runner = self.model_runner
        layers = self.model_config.hf_text_config.num_hidden_layers
        install(runner.get_model(), layers, here.seat)
        watch_passes(runner, lambda: self._lay_out(here))
        if here.draws:
            DrawingSampler(runner, here.gate.draw)
        self._scheduled: dict[str, int] = {}

    def execute_model(self, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a pass, whose rows are laid out on the way."""
        self._scheduled = scheduler_output.num_scheduled_tokens
        return super().execute_model(scheduler_output, *args, **kwargs)

    def sample_tokens(self, *args: Any, **kwargs: Any) -> Any:
        """Have the pass draw its tokens, which ends what is queued of it."""
        found = super().sample_tokens(*args, **kwargs)
        self._here.gate.launched(ids_that_run(self.model_runner))
        return found

    def _lay_out(self, here: station.Station) -> None:
        parts = parts_of_pass(self.model_runner, self._scheduled)
        here.gate.lay_out(parts, token_ids_of_pass(self.model_runner, sum(part.count for part in parts)))


class GatedScheduler(AsyncScheduler):  # type: ignore[misc]
    """A scheduler of vLLM whose requests are run as long as the gate lets them.

    It may lay out a pass while the one before it runs, where vLLM is set to schedule asynchronously.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        refuse_configuration(self.vllm_config)
        gate = station.found().gate
        assert isinstance(gate, Gate)
        self._gate = gate
        self._overlaps = bool(self.scheduler_config.async_scheduling)
        if self.cache_config.enable_prefix_caching:
            cached = CachedBlocks(self, self._gate.reach)
            self._gate.share(cached, cached.size, cached.most)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """Lay out a pass, without the requests that the gate has ended."""
        self._drop()
        found = super().schedule(*args, **kwargs)
        self._gate.show_hits(found.num_scheduled_tokens)
        return found

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        """Have what a pass read scored, and then take in what it drew."""
        if scheduler_output.total_num_scheduled_tokens:
            self._gate.passed(drawn_tokens(model_runner_output))
        self._drop()
        outputs = super().update_from_output(scheduler_output, model_runner_output)
        for name in self._gate.take_returned():
            run_again(self, name)
        return outputs

    def _update_after_schedule(self, scheduler_output: Any) -> None:
        kind = AsyncScheduler if self._overlaps else Scheduler
        kind._update_after_schedule(self, scheduler_output)

    def _update_request_with_output(
        self, request: Any, new_token_ids: list[int], is_stale: bool = False
    ) -> Any:
        kind = AsyncScheduler if self._overlaps else Scheduler
        return kind._update_request_with_output(self, request, new_token_ids, is_stale)

    def _drop(self) -> None:
        if gone := self._gate.take_gone():
            # Not by a subclass's: those that the gate has ended may have outputs that are still to leave.
            Scheduler.finish_requests(self, gone, RequestStatus.FINISHED_ABORTED)
