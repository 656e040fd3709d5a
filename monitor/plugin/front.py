"""What the plug-in does in vLLM's API server: requests that cannot be monitored are refused there, with the reason.

Loaded by the entry point `vllm.general_plugins` in each process of vLLM; does nothing unless `vllm_plugin` is set.
"""

from __future__ import annotations

import functools
from typing import Any

from monitor.errors import MonitorError
from monitor.settings import load_settings

WORKER, SCHEDULER = "monitor.plugin.worker.HostedWorker", "monitor.plugin.scheduler.HostedScheduler"


def register() -> None:
    """Have vLLM's API server refuse what the scheduler would refuse, with a message for its caller."""
    if not load_settings().vllm_plugin:
        return
    from monitor.plugin.extras import extras_of
    from monitor.vllm.names import InputProcessor, why_refused

    if getattr(InputProcessor.process_inputs, "monitored", False):
        return
    real, allowed = InputProcessor.process_inputs, load_settings().vllm_xargs

    @functools.wraps(real)
    def process_inputs(self: Any, *args: Any, **kwargs: Any) -> Any:
        if why := why_unmonitored(self.vllm_config):
            raise ValueError(why)
        made = real(self, *args, **kwargs)
        if why := why_refused(made):
            raise ValueError(f"this server is monitored and does not take {why}")
        try:
            extras_of(made.sampling_params.extra_args, allowed=allowed)
        except MonitorError as error:
            raise ValueError(str(error)) from None
        return made

    process_inputs.monitored = True  # type: ignore[attr-defined]
    InputProcessor.process_inputs = process_inputs


def why_unmonitored(config: Any) -> str:
    """What vLLM must be started with to be monitored; empty where it was."""
    given = {
        "--worker-cls": config.parallel_config.worker_cls,
        "--scheduler-cls": config.scheduler_config.scheduler_cls,
    }
    wanted = {"--worker-cls": WORKER, "--scheduler-cls": SCHEDULER}
    missing = [f"{flag} {wanted[flag]}" for flag, value in given.items() if _path(value) != wanted[flag]]
    if not missing:
        return ""
    return f"this server is to be monitored (its setting vllm_plugin) and was started without {' and '.join(missing)}"


def _path(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}" if isinstance(value, type) else str(value)
