"""Runs: what a front door has the model do. Score an input or generate from it, with rules, decision log and verdict.

The gRPC servicer and the HTTP API call the same two methods. Everything here runs inside a call that was admitted
(`monitor.rpc.access`), on the event loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

from monitor.errors import BadRequest, Violation
from monitor.model.engine.requests import Event, Finished, GenerationRequest, Released, ScoreJob
from monitor.records import FinishReason, ScoredTokens, Verdict
from monitor.rpc.access.call_interceptor import Call, current_call
from monitor.rpc.access.roles import caller
from monitor.rpc.calls import Calls
from monitor.rpc.decisions.ledger import Entry
from monitor.rpc.decisions.recorder import DecisionRecorder
from monitor.rpc.mailbox import Mailbox
from monitor.rpc.policies import ActivePolicies, InForce
from monitor.rpc.ports import ModelRuntime, RequestJudge, TokenisedPrompt
from monitor.rpc.thread_pool import ThreadPool
from monitor.rpc.verdict import conclude, refusal, shown
from monitor.rpc.wire import requests
from monitor.rpc.wire.problems import under
from monitor.telemetry.metrics.metrics import Metrics

_SHORT = 1024
"""Characters that are tokenised on the event loop; a hop to a thread takes longer than they do."""


class Scored(NamedTuple):
    """A text that was scored."""

    verdict: Verdict
    tokens: ScoredTokens | None
    """Where the caller asked for them."""
    prompt_tokens: int
    now: InForce
    """The policy set that it ran under."""


@dataclass(frozen=True)
class Ending:
    """How a generation ended."""

    reason: FinishReason
    verdict: Verdict
    refusal: str
    """What the policy that blocked wants to be shown; empty where none did or it says nothing."""
    tokens_generated: int


class Generation:
    """A generation as its caller sees it. Read `released` until it is None; then leave its context; then `ending`."""

    def __init__(
        self,
        call: Call,
        judge: RequestJudge,
        prompt: TokenisedPrompt,
        metrics: Metrics,
        entry: Entry,
        now: InForce,
    ) -> None:
        self.request_id, self.prompt_tokens, self.now = call.request_id, len(prompt.ids), now
        self._call, self._judge, self._metrics, self._entry = call, judge, metrics, entry
        self._box: Mailbox[Event]
        self._silent = True
        self._last: Finished | None = None
        self._ending: Ending | None = None

    @property
    def ending(self) -> Ending:
        """How it ended. Its decision is in the log by then, so it is there only once the context was left."""
        assert self._ending is not None
        return self._ending

    async def released(self) -> list[Released] | None:
        """What was released since the last time; None once it has ended."""
        if self._last is not None:
            return None
        events = await self._box.read()
        released = [_shown(event) for event in events if isinstance(event, Released)]
        self._last = next((event for event in events if isinstance(event, Finished)), None)
        if self._silent and any(event.text for event in released):
            self._silent = False
            self._metrics.first_token(self._call.age())
        self._entry.released(released)
        return released

    def read_from(self, box: Mailbox[Event]) -> None:
        """Where its events arrive."""
        self._box = box

    def conclude(self) -> None:
        """Work out the verdict. Raises what the caller is to see instead of an answer."""
        assert self._last is not None
        last = self._entry.finish = self._last
        verdict = conclude(
            self._judge,
            self._metrics,
            last.coverage,
            expected=0 if last.reason is FinishReason.POLICY else self.prompt_tokens,
            error=last.error,
            judged=self._entry.judged,
            suppressions=last.suppressions,
        )
        seen = replace(verdict, detections=shown(verdict.detections, last.released))
        said = refusal(self.now.policies.policies, verdict)
        self._ending = Ending(last.reason, seen, said, last.tokens_generated)


class Runs:
    """Scorings and generations of one server, for every front door."""

    def __init__(
        self,
        runtime: ModelRuntime,
        active: ActivePolicies,
        calls: Calls,
        metrics: Metrics,
        books: DecisionRecorder,
        tokenising: ThreadPool,
    ) -> None:
        self._runtime, self._active, self._calls = runtime, active, calls
        self._metrics, self._books, self._tokenising = metrics, books, tokenising

    async def score(self, asked: requests.Input, *, include_tokens: bool = False) -> Scored:
        """Score a text or a conversation."""
        prompt = await self.tokenise(asked, room=0, reply=False)
        with self._active.using() as now:
            judge, entry = self._judge(now, asked), self._entry(asked, now, prompt)
            entry.trail = trail = now.observers.open(judge)
            job = ScoreJob(
                current_call().request_id,
                prompt.ids,
                now.observers.trails,
                judge,
                include_tokens=include_tokens,
                tokens_truncated=prompt.truncated,
                lease=now.lease,
                admitted=trail.admitted,
            )
            async with entry:
                with self._calls.scoring(job) as box:
                    (outcome,) = await box.read()
                verdict = conclude(
                    judge,
                    self._metrics,
                    outcome.coverage,
                    expected=len(prompt.ids),
                    error=outcome.error,
                    judged=entry.judged,
                )
        return Scored(verdict, outcome.tokens, len(prompt.ids), now)

    @asynccontextmanager
    async def generation(self, asked: requests.GenerationSpec) -> AsyncIterator[Generation]:
        """Begin a generation. Leaving the context before `released` was None ends it.

        Raises on leaving what the caller is to see instead of an ending.
        """
        with self._active.using() as now:
            job, run, entry = await self._begin(asked, now)
            async with entry:
                with self._calls.generation(job) as box:
                    run.read_from(box)
                    yield run
                run.conclude()

    async def tokenise(self, asked: requests.Input, *, room: int, reply: bool) -> TokenisedPrompt:
        """Tokenise an input and charge its caller; on a thread where it is long."""

        def work() -> TokenisedPrompt:
            return self._runtime.tokenise(asked.content, truncate=asked.truncate, room=room, reply=reply)

        with under(asked.path):
            prompt = work() if asked.size <= _SHORT else await self._tokenising.run(work)
        current_call().charged(len(prompt.ids))
        return prompt

    async def _begin(
        self, asked: requests.GenerationSpec, now: InForce
    ) -> tuple[GenerationRequest, Generation, Entry]:
        """What the engine is to run, what its caller sees, and its entry in the decision log."""
        with under(asked.path):
            self._runtime.check_clamps(asked.clamps)
        # A prompt that was cut to fit must leave room for an answer; one that fits needs room for a token.
        wanted = min(asked.sampling.max_new_tokens, self._runtime.context // 2)
        prompt = await self.tokenise(asked.input, room=wanted if asked.input.truncate else 1, reply=True)
        call = current_call()
        call.charged(min(asked.sampling.max_new_tokens, self._runtime.context - len(prompt.ids)))
        judge, entry = self._judge(now, asked.input), self._entry(asked.input, now, prompt)
        entry.sampling = asked.sampling
        entry.trail = trail = now.observers.open(judge)
        job = GenerationRequest(
            request_id=call.request_id,
            prompt_ids=prompt.ids,
            sampling=asked.sampling,
            observer=now.observers.trails,
            observed=judge,
            clamps=asked.clamps,
            plans=now.policies.suppression.plans,
            include_tokens=asked.include_tokens,
            tokens_truncated=prompt.truncated,
            lease=now.lease,
            admitted=trail.admitted,
        )
        return job, Generation(call, judge, prompt, self._metrics, entry, now), entry

    def _judge(self, now: InForce, asked: requests.Input) -> RequestJudge:
        runtime = self._runtime
        missing = asked.relies_on - now.policies.applying(caller.get().name, asked.labels)
        if missing:
            raise BadRequest(
                Violation(
                    asked.policies_field,
                    f"{', '.join(sorted(missing))}: not in force for this request; leave it out, or load it",
                )
            )
        return now.policies.start(
            runtime.token_text,
            runtime.special_ids,
            caller=caller.get().name,
            labels=asked.labels,
            session=asked.session,
        )

    def _entry(self, asked: requests.Input, now: InForce, prompt: TokenisedPrompt) -> Entry:
        entry = self._books.ledger.open(asked, now.digests, now.policies.watch, len(prompt.ids))
        entry.session = asked.session
        return entry


def _shown(event: Released) -> Released:
    """An event as its caller may see it."""
    if not event.detections:
        return event
    return event._replace(detections=shown(event.detections, event.released))
