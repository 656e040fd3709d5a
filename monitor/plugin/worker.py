"""The worker for `vllm serve --worker-cls monitor.plugin.worker.HostedWorker`."""

from __future__ import annotations

from typing import Any

from monitor.plugin.host import host_for
from monitor.vllm import station
from monitor.vllm.names import refuse_configuration
from monitor.vllm.parts import MonitoredWorker


class HostedWorker(MonitoredWorker):
    """A worker of vLLM that brings the monitor into its process."""

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """Load the monitor, then the model with the tap in it."""
        refuse_configuration(self.vllm_config)
        with station.opened(host_for(self.vllm_config).station):
            super().load_model(*args, **kwargs)
