"""WatchDetections: streams decision records as they happen, or from a given record of the log on."""

from __future__ import annotations

import asyncio
import time
from itertools import islice
from pathlib import Path

from monitor.errors import BadRequest, Violation
from monitor.rpc.access.call_interceptor import Context
from monitor.rpc.decisions.ledger import Ledger
from monitor.rpc.wire import decisions
from monitor.rpc.wire.decisions import Cursor, WatchFilter
from monitor.telemetry.decisions.feed import Subscription
from monitor.telemetry.decisions.reader import read
from monitor.telemetry.decisions.record import KIND, DecisionRecord, from_json
from monitor.v1 import monitor_pb2 as pb

_CHUNK = 256
"""Number of records that are read from the log at a time, on a thread."""
_BEFORE_THE_END = 5.0
"""A stream ends itself this many seconds before the longest call is over; its client then calls again."""


class DetectionWatch:
    """Serves the WatchDetections streams of one server."""

    def __init__(self, ledger: Ledger, folder: Path | None, longest: float) -> None:
        """`folder` is that of the log, None without one; `longest` is how many seconds a call may take."""
        self._ledger, self._folder = ledger, folder
        self._longest = max(longest - _BEFORE_THE_END, longest / 2)

    async def serve(self, request: pb.WatchDetectionsRequest, context: Context) -> None:
        """Send records until the client leaves, the server stops, or the call has lasted as long as calls may."""
        wanted = decisions.watched(request)
        last = self._checked(wanted.after)
        deadline = time.monotonic() + self._longest
        with self._ledger.feed.subscribe(wanted.wants) as live:
            # Send headers at once, so that the client knows that its stream has begun.
            await context.send_initial_metadata(())
            missed = 0
            if wanted.after is not None:
                last, missed = await self._catch_up(wanted, live, context, last, deadline)
            while (left := deadline - time.monotonic()) > 0:
                found = await _next(live, left)
                if found is None:
                    return
                seq, record = found
                if seq > last or not seq:  # Others were sent from the log already.
                    await context.write(
                        decisions.response(self._at(seq), record, wanted, missed + live.dropped)
                    )

    def _at(self, seq: int) -> Cursor | None:
        """The place of a record in the log; None where it has no number."""
        log = self._ledger.log
        return Cursor(log.id, seq) if log is not None and seq else None

    def _checked(self, after: Cursor | None) -> int:
        """The sequence number after which to begin. Raises BadRequest for a cursor that is not one of this log."""
        if after is None:
            return 0
        log = self._ledger.log
        if log is None:
            raise BadRequest(Violation("after", "this server keeps no decision log; leave it out"))
        if after.log and after.log != log.id:
            message = (
                f"is a cursor of log {after.log}, and this server writes log {log.id}: it is another replica"
            )
            raise BadRequest(
                Violation(
                    "after", f"{message}, or its log was begun anew; write 0 to begin with its oldest record"
                )
            )
        if after.record > log.last:
            message = f"is record {after.record}, and the last one of this log is {log.last}"
            raise BadRequest(Violation("after", f"{message}; write the `cursor` of an event"))
        return after.record

    async def _catch_up(
        self, wanted: WatchFilter, live: Subscription, context: Context, after: int, deadline: float
    ) -> tuple[int, int]:
        """Send the records in the log, until the live queue holds everything after them.

        Returns the last sequence number up to which everything is accounted for, and the number of records after the
        first `after` that are not in the log any more.
        """
        log = self._ledger.log
        assert self._folder is not None
        assert log is not None
        missed = 0
        while time.monotonic() < deadline:
            live.start_replay()
            there = log.last
            records = read(self._folder, after)
            while chunk := await asyncio.to_thread(lambda source: list(islice(source, _CHUNK)), records):
                for content in chunk:
                    if content["seq"] <= after:  # A damaged log may give a number twice.
                        continue
                    missed, after = missed + content["seq"] - after - 1, content["seq"]
                    found = _decision(content)
                    if found is not None and wanted.wants(found):
                        await context.write(decisions.response(self._at(after), found, wanted, missed))
            missed, after = missed + max(0, there - after), max(there, after)
            if not live.dropped:
                break
        live.stop_replay()
        return after, missed


def _decision(content: dict[str, object]) -> DecisionRecord | None:
    """The record in a line of the log; None for lines of other kinds and for schemas that are not known."""
    if content.get("kind") != KIND:
        return None
    try:
        return from_json(content)
    except ValueError:
        return None


async def _next(live: Subscription, seconds: float) -> tuple[int, DecisionRecord] | None:
    """The next record; None at the end of the feed or after `seconds`."""
    try:
        return await asyncio.wait_for(live.next(), seconds)
    except TimeoutError:
        return None
