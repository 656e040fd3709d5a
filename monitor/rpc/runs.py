"""Runs: what a front door has the model do. Score an input or generate from it, with rules, decision log and verdict.

The gRPC servicer and the HTTP API call the same two methods. Everything here runs inside a call that was admitted
(`monitor.rpc.access`), on the event loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import NamedTuple, cast

from monitor.errors import BadRequest, Violation
from monitor.model.engine.requests import Event, Finished, GenerationRequest, Released, ScoreJob
from monitor.model.prompts import Prompt
from monitor.records import Action, Coverage, Detection, Failure, FinishReason, ScoredTokens, Verdict
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
from monitor.telemetry.decisions.trail import Trail
from monitor.telemetry.metrics.metrics import Metrics

_SHORT = 1024
"""Bytes that are tokenised on the event loop; a hop to a thread takes longer than they do."""
_LONG = 32 << 10
"""Bytes from which an input is tokenised among long ones, so that short ones never wait for it."""
_MESSAGE = 64
"""Bytes of text that take as long as the chat template needs for one message."""


class TokenisingPools(NamedTuple):
    """The threads that tokenise, for inputs of two sizes."""

    short: ThreadPool
    long: ThreadPool


class Scored(NamedTuple):
    """A text that was scored."""

    verdict: Verdict
    tokens: ScoredTokens | None
    """Where the caller asked for them."""
    prompt_tokens: int
    now: InForce
    """The policy set that it ran under."""
    trail: Trail
    """What happened to it, with its readings where they were asked for."""


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
        respelled: Callable[[Detection, Sequence[int]], Detection],
    ) -> None:
        self.request_id, self.prompt_tokens, self.now = call.request_id, len(prompt.ids), now
        self._call, self._judge, self._metrics, self._entry = call, judge, metrics, entry
        self._prompt, self._respelled = prompt, respelled
        assert entry.trail is not None
        self.trail = entry.trail
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

    def check(self) -> None:
        """Raise MonitoringFailed where its prompt lacks a text of the input and a policy is closed."""
        refuse_unread(self._judge, self._prompt, 0, self._metrics, self._entry)

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
        found = (self._respelled(one, last.ids) for one in shown(verdict.detections, last.released))
        seen = replace(verdict, detections=tuple(found))
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
        tokenising: TokenisingPools,
        limits: requests.InputLimits,
    ) -> None:
        self.limits = limits
        self._runtime, self._active, self._calls = runtime, active, calls
        self._metrics, self._books, self._tokenising = metrics, books, tokenising

    async def score(
        self, asked: requests.Input, *, include_tokens: bool = False, readings: bool = False
    ) -> Scored:
        """Score a text or a conversation; `readings` keeps those of its tokens in its trail."""
        prompt = await self.tokenise(asked, room=0, reply=False)
        written = await self._written(asked, prompt) if asked.answer else None
        with self._active.using() as now:
            judge, entry = self.judge(now, asked), self.entry(asked, now, prompt)
            entry.trail = trail = now.observers.open(judge, readings=readings)
            job = ScoreJob(
                current_call().request_id,
                prompt.ids,
                now.observers.trails,
                judge,
                prompt=written,
                include_tokens=include_tokens,
                tokens_truncated=prompt.truncated,
                lease=now.lease,
                admitted=trail.admitted,
            )
            async with entry:
                refuse_unread(judge, prompt, asked.unread, self._metrics, entry)
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
        found = tuple(self._runtime.respelled(one, prompt.ids) for one in verdict.detections)
        verdict = replace(verdict, detections=found)
        return Scored(verdict, outcome.tokens, len(prompt.ids), now, trail)

    @asynccontextmanager
    async def generation(
        self, asked: requests.GenerationSpec, prompt: TokenisedPrompt | None = None, *, readings: bool = False
    ) -> AsyncIterator[Generation]:
        """Begin a generation. Leaving the context before `released` was None ends it.

        `prompt` is given where somebody else has tokenised the input. `readings` keeps those of its tokens in its
        trail. Raises on leaving what the caller is to see instead of an ending.
        """
        with self._active.using() as now:
            job, run, entry = await self._begin(asked, now, prompt, readings)
            async with entry:
                run.check()
                with self._calls.generation(job) as box:
                    run.read_from(box)
                    yield run
                run.conclude()

    async def _written(self, asked: requests.Input, prompt: TokenisedPrompt) -> int:
        """How many tokens of a prompt stand before the answer in it."""
        turns = asked.content
        if isinstance(turns, str) or len(turns) == 1:
            return 0
        if turns[-1]["role"] != "assistant":
            return len(prompt.ids)
        with under(asked.path):
            fitted = self.limits.fitted(asked)
        if prompt.truncated:
            alone = await self._tokenised(replace(fitted, content=turns[-1]["content"]), room=0, reply=False)
            return max(0, len(prompt.ids) - len(alone.ids) - alone.truncated)
        asking = await self._tokenised(replace(fitted, content=turns[:-1]), room=0, reply=True)
        same = takewhile(lambda pair: pair[0] == pair[1], zip(asking.ids, prompt.ids, strict=False))
        return sum(1 for _ in same)

    async def tokenise(self, asked: requests.Input, *, room: int, reply: bool) -> TokenisedPrompt:
        """Tokenise an input and charge its caller; on a thread where it is long.

        What cannot fit the context is refused or cut before, and the caller is charged before for as many tokens as
        the input has at least. Raises BadRequest, TooLong and Overloaded.
        """
        with under(asked.path):
            fitted = self.limits.fitted(asked)
        size, call = fitted.size, current_call()
        fewest = self.limits.fewest_tokens(size)
        call.charged(fewest)
        prompt = await self._tokenised(fitted, room=room, reply=reply)
        call.charged(len(prompt.ids) - fewest)
        return _counting_cut(prompt, fitted.cut, size)

    async def _tokenised(self, fitted: requests.Input, *, room: int, reply: bool) -> TokenisedPrompt:
        def work() -> TokenisedPrompt:
            return self._runtime.tokenise(fitted.content, truncate=fitted.truncate, room=room, reply=reply)

        cost = fitted.size + _MESSAGE * (0 if isinstance(fitted.content, str) else len(fitted.content))
        with under(fitted.path):
            return work() if cost <= _SHORT else await self._on_thread(work, cost)

    async def _on_thread(self, work: Callable[[], TokenisedPrompt], cost: int) -> TokenisedPrompt:
        pool = self._tokenising.long if cost >= _LONG else self._tokenising.short
        return await pool.run(work, caller.get().name)

    async def _begin(
        self, asked: requests.GenerationSpec, now: InForce, prompt: TokenisedPrompt | None, readings: bool
    ) -> tuple[GenerationRequest, Generation, Entry]:
        """What the engine is to run, what its caller sees, and its entry in the decision log."""
        with under(asked.path):
            self._runtime.check_clamps(asked.clamps)
        # A prompt that was cut to fit must leave room for an answer; one that fits needs room for a token.
        wanted = min(asked.sampling.max_new_tokens, self._runtime.context // 2)
        if prompt is None:
            prompt = await self.tokenise(asked.input, room=wanted if asked.input.truncate else 1, reply=True)
        call = current_call()
        call.charged(min(asked.sampling.max_new_tokens, self._runtime.context - len(prompt.ids)))
        judge, entry = self.judge(now, asked.input), self.entry(asked.input, now, prompt)
        entry.sampling = asked.sampling
        entry.trail = trail = now.observers.open(judge, readings=readings)
        job = GenerationRequest(
            request_id=call.request_id,
            prompt_ids=prompt.ids,
            sampling=asked.sampling,
            observer=now.observers.trails,
            observed=judge,
            clamps=asked.clamps,
            plans=now.policies.suppression.plans,
            include_tokens=asked.include_tokens,
            logprobs=asked.logprobs,
            tokens_truncated=prompt.truncated,
            lease=now.lease,
            admitted=trail.admitted,
        )
        return job, Generation(call, judge, prompt, self._metrics, entry, now, self._runtime.respelled), entry

    def judge(self, now: InForce, asked: requests.Input) -> RequestJudge:
        """The rules of a request that begins now. BadRequest where a policy that it relies on is not in force."""
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

    def entry(self, asked: requests.Input, now: InForce, prompt: TokenisedPrompt) -> Entry:
        """The entry of a request that begins now in the decision log."""
        entry = self._books.ledger.open(asked, now.digests, now.policies.watch, len(prompt.ids))
        entry.session = asked.session
        return entry


def _counting_cut(prompt: TokenisedPrompt, cut: int, size: int) -> TokenisedPrompt:
    """The prompt, with an estimate of the tokens in `cut` bytes that were dropped before `size` were tokenised."""
    if not cut:
        return prompt
    dropped = max(1, round(cut * (len(prompt.ids) + prompt.truncated) / size))
    return replace(cast("Prompt", prompt), truncated=prompt.truncated + dropped)


def refuse_unread(
    judge: RequestJudge, prompt: TokenisedPrompt, unread: int, metrics: Metrics, entry: Entry
) -> None:
    """Note that a part of the input is not in the prompt; raise MonitoringFailed where a policy is closed."""
    if (prompt.left_out or unread) and judge.failed(Failure.LEFT_OUT).action is Action.BLOCK:
        conclude(judge, metrics, Coverage(0, 0, prompt.truncated), expected=0, judged=entry.judged)


def _shown(event: Released) -> Released:
    """An event as its caller may see it."""
    if not event.detections:
        return event
    return event._replace(detections=shown(event.detections, event.released))
