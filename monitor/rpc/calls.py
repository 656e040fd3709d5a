"""Requests in flight: handed to the engine or the scorer, ended early where their caller goes away.

Lives on the event loop. Does not know messages, verdicts or metrics other than of rejection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from monitor.errors import MonitorError, Overloaded, Unavailable
from monitor.model.engine.requests import Event, GenerationRequest, ScoreJob, ScoreOutcome
from monitor.rpc.mailbox import Mailbox
from monitor.rpc.ports import ModelRuntime
from monitor.telemetry.metrics.metrics import Metrics


class Calls:
    """Every generation and scoring that somebody waits for."""

    def __init__(self, runtime: ModelRuntime, metrics: Metrics) -> None:
        self._runtime = runtime
        self._metrics = metrics
        self._open: set[Mailbox[Any]] = set()

    @contextmanager
    def generation(self, request: GenerationRequest) -> Iterator[Mailbox[Event]]:
        """The events of a generation; leaving by any exception, cancellation included, ends it."""
        engine = self._runtime.engine
        with self._mailbox(lambda box: engine.submit(request, box.post)) as box:
            try:
                yield box
            except BaseException:
                engine.cancel(request.request_id)
                raise

    @contextmanager
    def scoring(self, job: ScoreJob) -> Iterator[Mailbox[ScoreOutcome]]:
        """The one outcome of a scoring; leaving by any exception, cancellation included, ends it."""
        scorer = self._runtime.scorer
        with self._mailbox(lambda box: scorer.submit(job, box.post)) as box:
            try:
                yield box
            except BaseException:
                scorer.cancel(job.request_id)
                raise

    def fail_all(self, error: MonitorError) -> None:
        """Tell everybody who waits that nothing more will come."""
        for box in self._open:
            box.fail(error)

    @contextmanager
    def _mailbox(self, submit: Callable[[Mailbox[Any]], None]) -> Iterator[Mailbox[Any]]:
        box: Mailbox[Any] = Mailbox(asyncio.get_running_loop())
        try:
            submit(box)
        except Overloaded:
            self._metrics.rejected("queue")
            raise
        except Unavailable:
            self._metrics.rejected("engine")
            raise
        self._open.add(box)
        try:
            yield box
        finally:
            self._open.discard(box)
