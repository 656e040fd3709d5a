"""WatchDetections: streams decision records as they happen, or from a given record of the log on."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Hashable
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
_KEPT = 64
"""Messages that are kept for the streams that are still to send them."""
_BEFORE_THE_END = 5.0
"""A stream ends itself this many seconds before the longest call is over; its client then calls again."""


class DetectionWatch:
    """Serves the WatchDetections streams of one server."""

    def __init__(self, ledger: Ledger, folder: Path | None, longest: float) -> None:
        """`folder` is that of the log, None without one; `longest` is how many seconds a call may take."""
        self._ledger, self._folder = ledger, folder
        self._longest = max(longest - _BEFORE_THE_END, longest / 2)
        self._messages = _Messages()

    async def serve(self, request: pb.WatchDetectionsRequest, context: Context) -> None:
        """Send records until the client leaves, the server stops, or the call has lasted as long as calls may."""
        wanted = decisions.watched(request)
        last = self._checked(wanted.after)
        deadline = time.monotonic() + self._longest
        with self._ledger.feed.subscribe(wanted.wants) as live:
            # Send headers at once, so that the client knows that its stream has begun.
            await context.send_initial_metadata(())
            missed, kind = 0, wanted.kind
            if wanted.after is not None:
                last, missed = await self._catch_up(wanted, live, context, last, deadline)
            while (left := deadline - time.monotonic()) > 0:
                found = await _next(live, left)
                if found is None:
                    return
                seq, record = found
                if seq > last or not seq:  # Others were sent from the log already.
                    key = kind, missed + live.dropped
                    await context.write(self._messages.made(record, key, self._at(seq), wanted))

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


class _Messages:
    """The messages of the newest records: made once for all streams that want the same of them."""

    def __init__(self) -> None:
        self._made: OrderedDict[Hashable, tuple[DecisionRecord, pb.WatchDetectionsResponse]] = OrderedDict()

    def made(
        self, record: DecisionRecord, key: tuple[Hashable, int], at: Cursor | None, wanted: WatchFilter
    ) -> pb.WatchDetectionsResponse:
        """The message of a record for streams of this kind that missed so many; not to be changed."""
        place = id(record), key
        held = self._made.get(place)
        if held is None or held[0] is not record:
            held = self._made[place] = record, decisions.response(at, record, wanted, key[1])
            if len(self._made) > _KEPT:
                self._made.popitem(last=False)
        return held[1]


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
        async with asyncio.timeout(seconds):
            return await live.next()
    except TimeoutError:
        return None
