"""What the plug-in does in vLLM's API server: it says whether requests are monitored, and refuses those that cannot be.

Loaded by the entry point `vllm.general_plugins` in each process of vLLM; does nothing unless `vllm_plugin` is set.
"""

from __future__ import annotations

import functools
import os
from typing import Any

from monitor.errors import MonitorError
from monitor.settings import load_settings

WORKER, SCHEDULER = "monitor.plugin.worker.HostedWorker", "monitor.plugin.scheduler.HostedScheduler"


def register() -> None:
    """Have vLLM's API server refuse what the scheduler would refuse, and tell callers why.

    Its metric `sae_monitor_vllm_watched`, and its `/health`, say whether its engine is monitored. vLLM is told to take
    its first model runner, unless the operator said otherwise: on GPUs it takes the second, which is refused.
    """
    settings = load_settings()
    if not settings.vllm_plugin:
        return
    os.environ.setdefault("VLLM_USE_V2_MODEL_RUNNER", "0")
    from monitor.vllm import names

    if getattr(names.InputProcessor.process_inputs, "monitored", False):
        return
    _tell_whether_watched(names)
    _refuse_requests(names, allowed=settings.vllm_xargs)


def _tell_whether_watched(names: Any) -> None:
    from monitor.telemetry.metrics.server_state import watched_gauge

    real, gauge = names.InputProcessor.__init__, watched_gauge()

    @functools.wraps(real)
    def made(self: Any, vllm_config: Any, *args: Any, **kwargs: Any) -> None:
        gauge.set(0 if why_unmonitored(vllm_config) else 1)
        real(self, vllm_config, *args, **kwargs)

    names.InputProcessor.__init__ = made
    names.refuse_health(why_unmonitored)


def _refuse_requests(names: Any, *, allowed: bool) -> None:
    from monitor.plugin.extras import extras_of
    from monitor.plugin.refusals import refusal_in, refusal_of

    real = names.InputProcessor.process_inputs

    @functools.wraps(real)
    def process_inputs(self: Any, *args: Any, **kwargs: Any) -> Any:
        if why := why_unmonitored(self.vllm_config):
            raise names.http_error(503, why)
        made = real(self, *args, **kwargs)
        if why := names.why_refused(made):
            raise names.http_error(400, f"this server is monitored and does not take {why}")
        try:
            extras_of(made.sampling_params.extra_args, allowed=allowed)
        except MonitorError as error:
            raise names.http_error(*refusal_of(error, made.request_id)) from None
        return made

    process_inputs.monitored = True  # type: ignore[attr-defined]
    names.InputProcessor.process_inputs = process_inputs
    names.watch_errors(refusal_in)


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
