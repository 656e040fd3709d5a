"""What the plug-in does in vLLM's API server: requests that cannot be monitored are refused there, with the reason.

Loaded by the entry point `vllm.general_plugins` in each process of vLLM; does nothing unless `vllm_plugin` is set.
"""

from __future__ import annotations

import functools
from typing import Any

from monitor.errors import MonitorError
from monitor.settings import load_settings


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
