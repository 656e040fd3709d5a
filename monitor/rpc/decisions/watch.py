"""WatchDetections: what was detected in everybody's requests, as it happens, or from a place in the log on.

Knows the feed and the log. Does not know who may watch, nor how records come about.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from monitor.errors import BadRequest, Violation
from monitor.rpc.access.call_interceptor import Context
from monitor.rpc.decisions.ledger import Ledger
from monitor.rpc.wire import decisions
from monitor.rpc.wire.decisions import WatchFilter
from monitor.telemetry.decisions.feed import Subscription
from monitor.telemetry.decisions.reader import read
from monitor.telemetry.decisions.record import KIND, DecisionRecord, from_json
from monitor.v1 import monitor_pb2 as pb

_CHUNK = 256
"""Records read from the log at a time, on a thread."""
_BEFORE_THE_END = 5.0
"""Seconds before the longest call is over: a stream ends by itself then, and its watcher comes again."""


class DetectionWatch:
    """Serves the streams of one server."""

    def __init__(self, ledger: Ledger, folder: Path | None, longest: float) -> None:
        """`folder` is the log's; `longest`: seconds that a call may take."""
        self._ledger, self._folder = ledger, folder
        self._longest = max(longest - _BEFORE_THE_END, longest / 2)

    async def serve(self, request: pb.WatchDetectionsRequest, context: Context) -> None:
        """Send records until the caller leaves, the server stops, or the longest call is over."""
        wanted = decisions.watched(request)
        last = self._checked(wanted.after)
        deadline = time.monotonic() + self._longest
        with self._ledger.feed.subscribe(wanted.wants) as live:
            # Headers at once, so that a watcher knows that it watches before anything happens.
            await context.send_initial_metadata(())
            missed = 0
            if wanted.after is not None:
                last, missed = await self._catch_up(wanted, live, context, last, deadline)
            while (left := deadline - time.monotonic()) > 0:
                found = await _next(live, left)
                if found is None:
                    return
                seq, record = found
                if seq > last or not seq:  # What is not was in the log already.
                    await context.write(decisions.response(seq, record, wanted, missed + live.dropped))

    def _checked(self, after: int | None) -> int:
        """The place to begin behind. BadRequest where the log has no such place."""
        if after is None:
            return 0
        log = self._ledger.log
        if log is None:
            raise BadRequest(Violation("after", "this server keeps no decision log; leave it out"))
        if after > log.last:
            raise BadRequest(Violation("after", f"is {after}, and the log's last record is {log.last}"))
        return after

    async def _catch_up(
        self, wanted: WatchFilter, live: Subscription, context: Context, after: int, deadline: float
    ) -> tuple[int, int]:
        """Send what is in the log until the live queue holds all that follows; gives the place and what is gone."""
        assert self._folder is not None
        missed, known = 0, False
        while time.monotonic() < deadline:
            live.restart()
            records = read(self._folder, after)
            while chunk := await asyncio.to_thread(lambda source: list(islice(source, _CHUNK)), records):
                if not known:
                    missed, known = chunk[0]["seq"] - after - 1, True
                after = chunk[-1]["seq"]
                for seq, record in _decisions(chunk):
                    if wanted.wants(record):
                        await context.write(decisions.response(seq, record, wanted, missed))
            if not live.dropped:
                break
        live.go_live()
        return after, missed


def _decisions(chunk: list[dict[str, object]]) -> Iterator[tuple[int, DecisionRecord]]:
    """The records among lines, with their numbers; those of another version's schema are passed over."""
    for content in chunk:
        if content.get("kind") != KIND:
            continue
        try:
            yield int(str(content["seq"])), from_json(content)
        except ValueError:
            continue


async def _next(live: Subscription, seconds: float) -> tuple[int, DecisionRecord] | None:
    """The next record; None at the end of the feed or after so long."""
    try:
        return await asyncio.wait_for(live.next(), seconds)
    except TimeoutError:
        return None
