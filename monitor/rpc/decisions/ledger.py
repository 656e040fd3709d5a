"""From requests to decision records: opened when a request is handed to the model, closed before its caller learns.

Joins the trail of a request, its verdict, the log, the live feed and the trace. Lives on the event loop. Does not
know messages, files or spans.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from monitor.errors import MonitoringFailed, Unavailable
from monitor.model.engine.requests import Finished, Released
from monitor.records import Action, Coverage, Digests, Failure, Sampling, Status, Verdict, WatchPlan
from monitor.rpc.access import roles
from monitor.rpc.access.call_interceptor import current_call
from monitor.rpc.decisions import trace as describing
from monitor.telemetry.decisions import record, tokens
from monitor.telemetry.decisions.feed import Feed
from monitor.telemetry.decisions.log import REFUSED, DecisionLog
from monitor.telemetry.decisions.privacy import PromptHash, TextMasks
from monitor.telemetry.decisions.record import DecisionRecord, without_text
from monitor.telemetry.decisions.trail import Trail
from monitor.telemetry.tracing import context


class Asked(Protocol):
    """What the model is asked to read."""

    @property
    def content(self) -> str | Sequence[Mapping[str, str]]:
        """A text, or turns as `{"role": …, "content": …}`."""

    @property
    def labels(self) -> Mapping[str, str]:
        """What the request says of itself; policies may be bound to it."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What goes into records beside the decision itself."""

    everything: bool
    """A record for every request, and not only for those with something to say."""
    text: TextMasks | None
    """Prompts and released responses, masked; None keeps them out."""
    readings: bool
    hashing: PromptHash


class Entry:
    """One request, from the model's door to its record. `async with` it; on leaving, the record is on disk.

    Raises Unavailable on leaving where the record could not be written and the log refuses such requests.
    """

    def __init__(
        self, ledger: Ledger, asked: Asked, digests: Digests, watch: WatchPlan, prompt_tokens: int
    ) -> None:
        self._ledger, self._asked, self._digests, self._watch = ledger, asked, digests, watch
        self._call = current_call()
        self._caller = roles.caller.get().name
        self._trace = context.current_trace()
        self.prompt_tokens = prompt_tokens
        self.sampling: Sampling | None = None
        self.session = ""
        self.mode = ""
        """How the text of another server was held while it was scored; empty for text of this one."""
        self.upstream_request_id = ""
        """The id that the other server gave to the request."""
        self.trail: Trail | None = None
        self.verdict: Verdict | None = None
        self.finish: Finished | None = None
        self._said: list[str] = []
        self._outcome = "answered"

    def released(self, events: Sequence[Released]) -> None:
        """Text is on its way to the caller."""
        if self._ledger.contents.text is not None:
            self._said += [event.text for event in events if event.text]

    def judged(self, verdict: Verdict) -> None:
        """The last word on the request, whether or not its caller will see it."""
        self.verdict = verdict

    async def __aenter__(self) -> Entry:
        self._ledger.check()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, Exception):
            self._outcome = _outcome(error)
            await self._ledger.commit(self)
            return
        # The task is being cancelled: nobody waits for the record, and it is written all the same.
        self._outcome = "cancelled"
        self._ledger.commit_later(self)

    def record(self) -> DecisionRecord:
        """The decision as it stands now."""
        verdict = self.verdict or self._unconcluded()
        return DecisionRecord(
            request_id=self._call.request_id,
            time=time.time(),
            seconds=self._call.age(),
            method=self._call.method,
            outcome=self._outcome,
            status=verdict.status,
            action=verdict.action,
            digests=self._digests,
            coverage=verdict.coverage,
            detections=tuple(map(without_text, verdict.detections)),
            scores=verdict.scores,
            suppressions=verdict.suppressions,
            failure=verdict.failure,
            finish=self.finish.reason.value if self.finish is not None else "",
            tokens_generated=self.finish.tokens_generated if self.finish is not None else 0,
            trace_id=self._trace.trace_id,
            session=self.session,
            caller=self._caller,
            mode=self.mode,
            upstream_request_id=self.upstream_request_id,
        )

    def notable(self, made: DecisionRecord) -> bool:
        """True where something was found, done or not done. A request that ended early is judged by what was seen."""
        if self.verdict is None:
            trail = self.trail
            return trail is not None and bool(trail.detections or trail.request.failure)
        return made.notable

    @property
    def ran(self) -> bool:
        """True once the model has read any of it."""
        return self.verdict is not None or (self.trail is not None and self.trail.times.last > 0)

    def content(self, made: DecisionRecord) -> dict[str, Any]:
        """The record as JSON with prompt, text and readings; called on the log's thread."""
        contents = self._ledger.contents
        asked = self._asked.content
        hashing = contents.hashing
        found = record.to_json(made)
        found["prompt"] = {
            "tokens": self.prompt_tokens,
            "hmac": hashing(asked),
            "key": hashing.key_id,
        }
        if self._asked.labels:
            found["labels"] = dict(self._asked.labels)
        if contents.text is not None:
            found["text"] = {
                "prompt": contents.text.content(asked),
                "response": contents.text("".join(self._said)),
            }
        if contents.readings and self.trail is not None and self.trail.whole:
            found["readings"] = tokens.to_json(tuple(self.trail.stretches), tokens.column_names(self._watch))
        return found

    def describe(self, made: DecisionRecord, model: str) -> None:
        """Tell the trace."""
        name = describing.operation(made.method, not isinstance(self._asked.content, str))
        said = describing.attributes(
            made, model=model, name=name, prompt_tokens=self.prompt_tokens, sampling=self.sampling
        )
        self._trace.describe(f"{name} {model}", said)
        if self.trail is not None:
            describing.phases(self._trace, self.trail)
            describing.detections(self._trace, self.trail)
            if self._ledger.findings:
                describing.findings(self._trace, made, self.trail)

    def _unconcluded(self) -> Verdict:
        """What is known of a request that ended without a verdict: nothing that would let it look clean."""
        trail = self.trail
        if trail is None:
            return Verdict(Status.UNKNOWN, Action.ALLOW, Coverage(), failure=Failure.NOT_CONCLUDED)
        found = tuple(found for _, found in list(trail.detections))
        failure = trail.request.failure or Failure.NOT_CONCLUDED
        return Verdict(Status.UNKNOWN, trail.request.action, trail.coverage, found, failure=failure)


class Ledger:
    """Opens entries and sees to it that each is logged, watched and traced once."""

    def __init__(
        self,
        feed: Feed,
        contents: Contents,
        model: str,
        rejected: Callable[[str], None] = lambda _: None,
        *,
        findings: bool = False,
    ) -> None:
        """`model` is what traces call it; `rejected` counts requests that are turned away, by reason.

        `findings`: traces say what was detected in the names of OpenTelemetry's draft for guardrails, too.
        """
        self.findings = findings
        self.feed, self.contents = feed, contents
        self._rejected = rejected
        self.log: DecisionLog | None = None
        """None where decisions are not logged."""
        self._model = model
        self._later: set[asyncio.Task[None]] = set()

    def open(self, asked: Asked, digests: Digests, watch: WatchPlan, prompt_tokens: int) -> Entry:
        """The entry of a request that is about to run under the policies with this digest and watch plan."""
        return Entry(self, asked, digests, watch, prompt_tokens)

    def healthy(self) -> bool:
        """False while requests are refused because the log cannot be written."""
        return self.log is None or self.log.healthy()

    def check(self) -> None:
        """Raises Unavailable where the record of a request would be refused."""
        if not self.healthy():
            self._rejected("log")
            raise Unavailable(REFUSED)

    async def commit(self, entry: Entry) -> None:
        """Trace, log and publish. Raises Unavailable where the log refuses the request.

        A caller who leaves meanwhile changes nothing: the record is on its way to the disk, and is published like any.
        """
        made = self._decided(entry)
        if self._wanted(entry, made):
            await asyncio.shield(self._begun(self._store(entry, made)))

    def commit_later(self, entry: Entry) -> None:
        """As `commit`, for a caller who is gone."""
        made = self._decided(entry)
        if self._wanted(entry, made):
            self._begun(self._store(entry, made))

    def _begun(self, storing: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(storing)
        self._later.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._later.discard(task)
        if not task.cancelled():
            task.exception()  # Whoever waited has it; where nobody did, the log has counted it.

    def _decided(self, entry: Entry) -> DecisionRecord:
        """The record, and the trace told of it: while the call lasts, for its span ends with it."""
        made = entry.record()
        entry.describe(made, self._model)
        return made

    def _wanted(self, entry: Entry, made: DecisionRecord) -> bool:
        return entry.notable(made) or (self.contents.everything and entry.ran)

    async def _store(self, entry: Entry, made: DecisionRecord) -> None:
        seq = 0
        if self.log is not None:
            seq = await asyncio.wrap_future(self.log.append(lambda: entry.content(made)))
        if entry.notable(made):
            self.feed.publish(seq, made)

    async def close(self) -> None:
        """Write what waits, then let go of the log."""
        self.feed.close()
        if self._later:
            await asyncio.wait(self._later)
        if self.log is not None:
            await asyncio.to_thread(self.log.close)


def _outcome(error: Exception | None) -> str:
    if error is None:
        return "answered"
    return "refused" if isinstance(error, MonitoringFailed) else "failed"
