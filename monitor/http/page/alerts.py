"""Alerts: decisions as they happen and one in full, what the present policies would say, and false-positive marks."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import time
from typing import Any, cast

from monitor.errors import BadRequest, InputError, MonitorError, NotFound, Violation
from monitor.http.calls import Exchange, HttpPeer, dumps, ending_with
from monitor.http.fields import Fields
from monitor.http.openai.verdicts import verdict
from monitor.http.page.resources import CallerLeft, Gone, PageResources, number, one, query
from monitor.lab.replay import CannotReplay, FromReadings, FromText, differs, ids_of, stronger
from monitor.policy.policyset import PolicySet
from monitor.records import Verdict
from monitor.rpc.access.call_interceptor import Context, current_call
from monitor.rpc.policies import InForce
from monitor.rpc.wire import decisions as wire
from monitor.rpc.wire.problems import Problems
from monitor.telemetry.decisions import reader
from monitor.telemetry.decisions.record import KIND, DecisionRecord, from_json, without_text

RECENT = 500
"""Decisions of the log that a feed may begin with at most."""
HEARTBEAT = 15.0
"""Seconds between two comments in a feed, by which a browser that has gone is noticed."""
MOST_READ = 200_000
"""Records of the log that are looked at for a chart."""
GATHERED = 1.0
"""Seconds for which a feed gathers what comes, behind what it has just sent. So many records cost one write."""
_ENCODED = 64
"""Events that are kept for the feeds that are still to send them."""
HOURS = 24 * 7
_NOTHING_KEPT = (
    "the log kept neither readings nor text of it; serve with decision_log_readings to ask this of later ones"
)


class PageAlerts:
    """`/api/alerts…`."""

    def __init__(self, resources: PageResources) -> None:
        self._resources = resources
        self._books = resources.parts.books
        self._folder = Path(self._books.place) if self._books.place != "off" else None
        self._events = _Events()

    async def feed(self, exchange: Exchange) -> None:
        """`GET /api/alerts`: decision records as server-sent events, from recent ones on where there is a log."""
        wanted = self._wanted(exchange)
        checks, peer = self._resources.parts.checks, HttpPeer(exchange.scope)
        with ending_with(exchange):
            async with checks.while_accepted(current_call().method, peer):
                await self._send(wanted, _Sink(exchange, self._events))
        await exchange.done()

    async def _send(self, wanted: Any, sink: _Sink) -> None:
        beat = asyncio.create_task(sink.beat())
        try:
            await self._books.watch.serve(wanted, cast("Context", sink))
            await sink.flush()
        finally:
            beat.cancel()
            sink.close()

    def _wanted(self, exchange: Exchange) -> Any:
        """What is asked for, as the message of WatchDetections."""
        asked = query(exchange)
        shadow, unknown = one(asked, "shadow", "1") == "1", one(asked, "unknown", "1") == "1"
        log, cursor = self._books.ledger.log, exchange.header("last-event-id")
        after = None
        if log is not None:
            recent = number(one(asked, "recent", "100"), "recent", 0, RECENT)
            # A cursor of another log, from before this server began one, would be refused for ever.
            known = cursor.startswith(f"{log.id}-")
            after = cursor if known else f"{log.id}-{max(0, log.last - recent)}"
        return wire.request(asked.get("policy", []), shadow=shadow, unknown=unknown, after=after)

    async def decision(self, exchange: Exchange) -> None:
        """`GET /api/alerts/RECORD`: one decision with all that the log has of it."""
        content, record = await self._record(exchange)
        await self._name(exchange, content.get("detections", ()), content, record)
        await exchange.json(content)

    async def replay(self, exchange: Exchange) -> None:
        """`POST /api/alerts/RECORD/replay`: what the policies that are in force now would have said."""
        content, record = await self._record(exchange)
        if "readings" not in content and "text" in content:
            self._resources.charge([dumps(content["text"]).decode()])  # the model reads it again
        with self._resources.parts.active.using() as now:
            try:
                found = await self._resources.work(
                    exchange, lambda gone: self._again(content, record, now, gone)
                )
            except CannotReplay as error:
                raise InputError(str(error)) from None
        told = verdict(_without_text(found))
        await self._name(exchange, told.get("detections", ()), content, record)
        await exchange.json(
            {
                "verdict": told,
                "differs": differs(record, found),
                "stronger": stronger(record, found),
            }
        )

    def _again(self, content: Mapping[str, Any], record: DecisionRecord, now: InForce, gone: Gone) -> Verdict:
        # A set of its own: the scores of conversations that go on are not for a replay to change.
        policies = PolicySet(now.policies.policies, now.policies.digest)
        if "readings" in content:
            here = {(record.digests.model, record.digests.dictionary): policies}
            runtime = self._resources.parts.runtime
            if (runtime.model_digest, runtime.dictionary_digest) not in here:
                raise CannotReplay("it was made with another model or dictionary than those that run now")
            return FromReadings(self._resources.folder, here).run(content, record)
        if "text" not in content or self._resources.runtime is None:
            raise CannotReplay(_NOTHING_KEPT)
        return FromText(self._resources.runtime, policies, now.lease).run(content, record, gone)

    async def _name(
        self,
        exchange: Exchange,
        detections: Sequence[dict[str, Any]],
        content: Mapping[str, Any],
        record: DecisionRecord,
    ) -> None:
        """Give evidence what people know it by: the token's text where the log has it, else its feature's label."""
        evidence = [token for found in detections for token in found.get("evidence", ())]
        if not evidence:
            return

        def work(_: Gone) -> None:
            texts = self._texts(content, record)
            for token in evidence:
                text = texts[token["position"]] if token["position"] < len(texts) else ""
                if text:
                    token["text"] = text
                elif readings := token.get("readings"):
                    token["label"] = self._label(readings[0]["feature"])

        await self._resources.work(exchange, work)

    def _texts(self, content: Mapping[str, Any], record: DecisionRecord) -> Sequence[str]:
        """Texts of the tokens that ran, by position, as far as the log's text has the tokens that were counted.

        Masks, and words that were written in other tokens than they are read, give others.
        """
        runtime = self._resources.runtime
        if runtime is None or not isinstance(content.get("text"), dict):
            return ()
        try:
            ids, prompt = ids_of(runtime, content, record)
        except MonitorError:
            return ()
        if prompt != content.get("prompt", {}).get("tokens"):
            return ()
        said = len(ids) - prompt == record.tokens_generated
        return runtime.token_texts(ids if said else ids[:prompt])

    def _label(self, feature: int) -> str:
        book = self._resources.book
        return (book.labels.best(feature) if book is not None else "") or f"feature {feature}"

    async def mark(self, exchange: Exchange) -> None:
        """`POST /api/alerts/RECORD/mark`: it was a false positive, so its text is a benign example for the next fit."""
        body = await self._resources.calls.read(exchange)
        problems = Problems()
        fields = Fields(body, problems)
        given = fields.text("text")
        fields.finish()
        problems.raise_any()
        overlay = self._resources.overlay
        if overlay is None:
            raise InputError("nothing can be saved here: the operator has set no page_overlay")
        content, record = await self._record(exchange)
        row = _benign(given, content) | {"group": f"decision {record.request_id}"}
        saved = await self._resources.work(exchange, lambda _: overlay.mark(row))
        await exchange.json({"saved": saved, "file": "policies/benign/marked.jsonl"})

    async def activity(self, exchange: Exchange) -> None:
        """`GET /api/alerts/activity?hours=N`: detections by hour, policy and mode."""
        hours = number(one(query(exchange), "hours", "6"), "hours", 1, HOURS)
        folder = self._need_folder()
        found = await self._resources.work(
            exchange, lambda gone: _by_hour(folder, time() - 3600 * hours, gone)
        )
        await exchange.json({"hours": hours, "now": time(), "counts": found})

    async def _record(self, exchange: Exchange) -> tuple[dict[str, Any], DecisionRecord]:
        wanted = number(exchange.path["record"], "record", 1, 2**50)
        folder = self._need_folder()
        content = await self._resources.work(exchange, lambda _: _read_record(folder, wanted))
        if content is None or content.get("kind") != KIND:
            raise NotFound(f"the log has no decision {wanted}; the oldest ones may have been deleted")
        return content, from_json(content)

    def _need_folder(self) -> Path:
        if self._folder is None:
            raise NotFound("this server keeps no decision log; set decision_log")
        return self._folder


def _without_text(found: Verdict) -> Verdict:
    """A verdict of readings, whose tokens are told apart by position alone."""
    return replace(found, detections=tuple(map(without_text, found.detections)))


class _Events:
    """The newest messages as events: written out once for all feeds."""

    def __init__(self) -> None:
        self._made: OrderedDict[int, tuple[Any, bytes]] = OrderedDict()

    def of(self, message: Any) -> bytes:
        """A message as an event; its cursor is what the browser comes back with."""
        held = self._made.get(id(message))
        if held is None or held[0] is not message:
            name = f"id: {message.cursor}\n".encode() if message.cursor else b""
            written = name + b"data: " + dumps(wire.as_json(message)) + b"\n\n"
            held = self._made[id(message)] = message, written
            if len(self._made) > _ENCODED:
                self._made.popitem(last=False)
        return held[1]


class _Sink:
    """A feed on its way to a browser, as `DetectionWatch` writes to it."""

    def __init__(self, exchange: Exchange, events: _Events) -> None:
        self._exchange, self._events = exchange, events
        self._waiting: list[bytes] = []
        self._sending = asyncio.Lock()
        """A browser that reads slowly holds up its own feed here, whose queue then drops the oldest."""
        self._sent = -GATHERED
        self._later: asyncio.Task[None] | None = None

    async def send_initial_metadata(self, _: Sequence[Any]) -> None:
        """The feed has begun."""
        await self._exchange.raw_event(b"retry: 2000\n: begun\n\n")

    async def write(self, message: Any) -> None:
        """Send a record now, or with those that come within the next moment."""
        async with self._sending:
            self._waiting.append(self._events.of(message))
        left = self._sent + GATHERED - asyncio.get_running_loop().time()
        if left <= 0 or len(self._waiting) >= _ENCODED:
            await self.flush()
        elif self._later is None or self._later.done():
            self._later = asyncio.create_task(self._flush_in(left))

    async def flush(self) -> None:
        """Send what waits."""
        async with self._sending:
            if self._waiting:
                gathered, self._waiting = b"".join(self._waiting), []
                self._sent = asyncio.get_running_loop().time()
                await self._exchange.raw_event(gathered)

    def close(self) -> None:
        """Send nothing any more."""
        if self._later is not None:
            self._later.cancel()

    async def beat(self) -> None:
        """Send a comment from time to time."""
        with suppress(asyncio.CancelledError):
            while True:
                await asyncio.sleep(HEARTBEAT)
                await self._exchange.raw_event(b": beat\n\n")

    async def _flush_in(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.flush()


def _read_record(folder: Path, wanted: int) -> dict[str, Any] | None:
    found = next(reader.read(folder, wanted - 1), None)
    return found if found is not None and found["seq"] == wanted else None


def _benign(given: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a benign example: the text that the log has, or the one that a person gives. Raises BadRequest."""
    if given:
        return {"text": given}
    said = content.get("text")
    if not isinstance(said, dict):
        raise BadRequest(Violation("text", "the log has no text of it; paste the text that is benign"))
    prompt, response = said.get("prompt", ""), said.get("response", "")
    if isinstance(prompt, str):
        return {"text": prompt + response}
    turns = [{"role": str(turn["role"]), "content": str(turn["content"])} for turn in prompt]
    return {"messages": [*turns, *([{"role": "assistant", "content": response}] if response.strip() else [])]}


def _by_hour(folder: Path, since: float, gone: Gone = lambda: False) -> list[dict[str, Any]]:
    """Detections of the newest records by the hour, policy and mode; enforced actions are told by name."""
    counts: Counter[tuple[int, str, str, str]] = Counter()
    first = max(0, reader.newest(folder) - MOST_READ)
    for content in reader.read(folder, first):
        if gone():
            raise CallerLeft
        if content.get("kind") != KIND:
            continue
        record = from_json(content)
        if record.time >= since:
            hour = int((record.time - since) // 3600)
            counts.update((hour, d.policy, d.mode.value, d.action.name.lower()) for d in record.detections)
    return [
        {"hour": hour, "policy": policy, "mode": mode, "action": action, "count": count}
        for (hour, policy, mode, action), count in sorted(counts.items())
    ]
