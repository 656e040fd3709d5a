"""What stands for the engine where a model can be scored and not generated from.

Knows which families transformers' continuous batching cannot run, by the private names that tell, and refuses
generations. Does not score: that needs no cache.
"""

from __future__ import annotations

from typing import Any

from monitor.errors import ModelError
from monitor.model.requests import Emit, GenerationRequest
from monitor.model.spreading import why_spread


def why_not_batched(model: Any) -> str:
    """Why continuous batching cannot run this model; empty where it can.

    Attention that does not go through the library's attention interface ignores the paged cache: some of these
    families crash at the first decoded token, others run and silently read a wrong past. The cache itself lies on
    one device.
    """
    if why := why_spread(model):
        return why
    name, config = type(model).__name__, model.config.get_text_config()
    if not getattr(model, "_supports_attention_backend", False):
        return f"the attention of {name} cannot read the paged cache of continuous batching"
    if getattr(config, "kv_lora_rank", None) is not None:
        return (
            f"the keys and values of {name} (latent attention) have widths that the paged cache does not hold"
        )
    return ""


class NoEngine:
    """The engine's front door, shut. The server around it still scores."""

    captured = False
    """No pass is ever captured as a CUDA graph."""

    def __init__(self, why: str) -> None:
        self.why = why

    def start(self) -> None:
        """Nothing to start."""

    def stop(self, grace: float) -> None:
        """Nothing to stop."""

    def submit(self, request: GenerationRequest, emit: Emit) -> None:
        """Raises ModelError: nothing is ever generated."""
        raise ModelError(f"this server can score texts and not generate: {self.why}")

    def cancel(self, request_id: str) -> None:
        """Nothing runs."""

    def queue_depth(self) -> int:
        """Nothing waits."""
        return 0

    def running(self) -> int:
        """Nothing runs."""
        return 0

    def passes(self) -> int:
        """No pass was made."""
        return 0

    def unscored_passes(self) -> int:
        """No pass was made."""
        return 0

    def healthy(self) -> bool:
        """True: what is not there cannot die."""
        return True
