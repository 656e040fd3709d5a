"""The runtime whose passes are those of somebody else's vLLM."""

from __future__ import annotations

import threading
from typing import Any

import structlog

from monitor.model.engine.paged import Limits
from monitor.plugin.batcher import HostedBatcher
from monitor.vllm.operator import Seat
from monitor.vllm.runtime import CoreRuntime
from monitor.vllm.scorer import SharedSteps

_log = structlog.get_logger(__name__)


class HostedRuntime(CoreRuntime):
    """As `CoreRuntime`; vLLM finds the ends of texts, and requests wait until the check at the start has passed."""

    _finds_ends = False

    def __init__(self, *args: Any, static: bool, **options: Any) -> None:
        """`static`: passes may be CUDA-graph replays."""
        self._static = static
        self.proven = threading.Event()
        super().__init__(*args, **options)

    def start(self) -> None:
        """Begin the check, which runs once vLLM does. Where it fails, vLLM ends."""
        self.engine.start()
        self.scorer.start()
        threading.Thread(target=self._prove, name="reference", daemon=True).start()

    @property
    def hosted(self) -> HostedBatcher:
        """What stands between the engine and vLLM's scheduler."""
        found = self._running_batcher()
        assert isinstance(found, HostedBatcher)
        return found

    def _prove(self) -> None:
        try:
            self.check()
        except Exception as error:  # noqa: BLE001  (whatever it was: nothing may be served)
            _log.error("the check at the start failed", error=str(error))
            self.hosted.fail(str(error))
            return
        self.proven.set()

    def _make_batcher(self, limits: Limits, steps: SharedSteps, seat: Seat) -> HostedBatcher:
        return HostedBatcher(steps, seat, static=self._static)
