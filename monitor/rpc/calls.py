"""Requests in flight: handed to the engine or the scorer, and ended early where their caller goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from monitor.errors import MonitorError, Overloaded, Unavailable
from monitor.model.engine.requests import (
    Event,
    GenerationRequest,
    ScoreJob,
    ScoreOutcome,
    StreamJob,
    StreamRead,
)
from monitor.rpc.mailbox import Mailbox, PostOffice
from monitor.rpc.ports import ModelRuntime
from monitor.telemetry.metrics.metrics import Metrics


class _Offices(NamedTuple):
    events: PostOffice[Event]
    outcomes: PostOffice[ScoreOutcome]
    reads: PostOffice[StreamRead]


class Calls:
    """Every generation and scoring that somebody waits for. Lives on one event loop."""

    def __init__(self, runtime: ModelRuntime, metrics: Metrics) -> None:
        self._runtime = runtime
        self._metrics = metrics
        self._opened: _Offices | None = None

    @contextmanager
    def generation(self, request: GenerationRequest) -> Iterator[Mailbox[Event]]:
        """The events of a generation; leaving by any exception, cancellation included, ends it."""
        engine, office = self._runtime.engine, self._offices().events
        with office.box(request.request_id) as box:
            with self._counting():
                engine.submit(request, office.deliver)
            try:
                yield box
            except BaseException:
                engine.cancel(request.request_id)
                raise

    @contextmanager
    def scoring(self, job: ScoreJob) -> Iterator[Mailbox[ScoreOutcome]]:
        """The one outcome of a scoring; leaving by any exception, cancellation included, ends it."""
        scorer, office = self._runtime.scorer, self._offices().outcomes
        with office.box(job.request_id) as box:
            with self._counting():
                scorer.submit(job, office.deliver)
            try:
                yield box
            except BaseException:
                scorer.cancel(job.request_id)
                raise

    @contextmanager
    def streaming(self, job: StreamJob) -> Iterator[Mailbox[StreamRead]]:
        """How far a stream was read, pass by pass; leaving ends it."""
        scorer, office = self._runtime.scorer, self._offices().reads
        with office.box(job.request_id) as box:
            with self._counting():
                scorer.open_stream(job, office.deliver)
            try:
                yield box
            finally:
                scorer.end_stream(job.request_id)

    def fail_all(self, error: MonitorError) -> None:
        """Tell everybody who waits that nothing more will come."""
        for office in self._opened or ():
            office.fail_all(error)

    def _offices(self) -> _Offices:
        if self._opened is None:
            loop = asyncio.get_running_loop()
            self._opened = _Offices(PostOffice(loop), PostOffice(loop), PostOffice(loop))
        return self._opened

    @contextmanager
    def _counting(self) -> Iterator[None]:
        """Count a request that is turned away."""
        try:
            yield
        except Overloaded:
            self._metrics.rejected("queue")
            raise
        except Unavailable:
            self._metrics.rejected("engine")
            raise
