"""The worker: vLLM's own, with the tap in its model and the gate told before each pass. Give it as `worker_cls`."""

from __future__ import annotations

from typing import Any

from monitor.vllm import station
from monitor.vllm.layers import install
from monitor.vllm.names import (
    DrawingSampler,
    PlatformWorker,
    parts_of_pass,
    token_ids_of_pass,
    watch_passes,
)


class MonitoredWorker(PlatformWorker):  # type: ignore[misc]
    """A worker of vLLM whose model is tapped."""

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """Load the model, install the tap, and have each pass laid out before the gate."""
        here = station.found()
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

    def _lay_out(self, here: station.Station) -> None:
        parts = parts_of_pass(self.model_runner, self._scheduled)
        here.gate.lay_out(parts, token_ids_of_pass(self.model_runner, sum(part.count for part in parts)))
