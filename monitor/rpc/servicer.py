"""The servicer: the methods of MonitorService read the message, run it and write the answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from monitor.model.engine.requests import Event, Finished, GenerationRequest, Released, ScoreJob
from monitor.records import Coverage, FinishReason, Verdict
from monitor.rpc.access.call_interceptor import Call, Context, current_call
from monitor.rpc.access.roles import caller
from monitor.rpc.calls import Calls
from monitor.rpc.decisions.ledger import Entry
from monitor.rpc.decisions.recorder import DecisionRecorder
from monitor.rpc.mailbox import Mailbox
from monitor.rpc.policies import ActivePolicies, InForce, Reloader
from monitor.rpc.ports import ModelRuntime, RequestJudge, TokenisedPrompt
from monitor.rpc.thread_pool import ThreadPool
from monitor.rpc.verdict import conclude, refusal, shown
from monitor.rpc.wire import enums, requests, responses
from monitor.rpc.wire.problems import under
from monitor.telemetry.metrics.metrics import Metrics
from monitor.v1 import monitor_pb2 as pb

_SHORT = 1024
"""Characters that are tokenised on the event loop; a hop to a thread takes longer than they do."""


class _Generation:
    """One generation as its caller sees it: where it stands between its first and its last event."""

    def __init__(
        self, call: Call, judge: RequestJudge, prompt: TokenisedPrompt, metrics: Metrics, entry: Entry
    ) -> None:
        self.request_id = call.request_id
        self.entry = entry
        self._call, self._judge, self._prompt, self._metrics = call, judge, prompt, metrics
        self._silent = True
        self._last: Finished | None = None

    async def released(self, box: Mailbox[Event]) -> list[Released] | None:
        """What was released since the last time; None once it has ended."""
        if self._last is not None:
            return None
        events = await box.read()
        released = [_shown(event) for event in events if isinstance(event, Released)]
        self._last = next((event for event in events if isinstance(event, Finished)), None)
        if self._silent and any(event.text for event in released):
            self._silent = False
            self._metrics.first_token(self._call.age())
        self.entry.released(released)
        return released

    def conclude(self) -> tuple[pb.FinishReason, Verdict]:
        """Why it ended, and the verdict. Raises what the caller is to see instead of an answer."""
        assert self._last is not None
        last = self.entry.finish = self._last
        verdict = conclude(
            self._judge,
            self._metrics,
            last.coverage,
            expected=0 if last.reason is FinishReason.POLICY else len(self._prompt.ids),
            error=last.error,
            judged=self.entry.judged,
            suppressions=last.suppressions,
        )
        found = replace(verdict, detections=shown(verdict.detections, last.released))
        return enums.FINISH_REASON[last.reason], found


class MonitorServicer:
    """monitor.v1.MonitorService."""

    def __init__(
        self,
        runtime: ModelRuntime,
        active: ActivePolicies,
        reloader: Reloader,
        calls: Calls,
        metrics: Metrics,
        books: DecisionRecorder,
        *,
        tokenising: ThreadPool,
        inspecting: ThreadPool,
    ) -> None:
        self._runtime = runtime
        self._active = active
        self._reloader = reloader
        self._calls = calls
        self._metrics = metrics
        self._books = books
        self._tokenising = tokenising
        self._inspecting = inspecting

    async def Score(self, request: pb.ScoreRequest, context: Context) -> pb.ScoreResponse:  # noqa: N802
        """Score a text or a conversation."""
        asked = requests.score(request)
        prompt = await self._tokenise(asked, room=0, reply=False)
        request_id = current_call().request_id
        with self._active.using() as now:
            judge, entry = self._judge(now, asked), self._entry(asked, now, prompt)
            entry.trail = trail = now.observers.open(judge)
            job = ScoreJob(
                request_id,
                prompt.ids,
                now.observers.trails,
                judge,
                include_tokens=request.include_tokens,
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
        return pb.ScoreResponse(
            request_id=request_id,
            verdict=responses.verdict(verdict),
            tokens=responses.scored_tokens([outcome.tokens], self._runtime.token_text),
            digests=now.said,
        )

    async def Generate(self, request: pb.GenerateRequest, context: Context) -> pb.GenerateResponse:  # noqa: N802
        """Generate in one piece."""
        parts: list[Released] = []
        with self._active.using() as now:
            job, run = await self._begin(request.generation, now)
            async with run.entry:
                with self._calls.generation(job) as box:
                    while (events := await run.released(box)) is not None:
                        parts += events
                reason, verdict = run.conclude()
        return pb.GenerateResponse(
            request_id=run.request_id,
            text="".join(part.text for part in parts),
            finish_reason=reason,
            verdict=responses.verdict(verdict),
            tokens=responses.scored_tokens((part.tokens for part in parts), self._runtime.token_text),
            digests=now.said,
            refusal=refusal(now.policies.policies, verdict),
        )

    async def GenerateStream(self, request: pb.GenerateStreamRequest, context: Context) -> None:  # noqa: N802
        """Generate in chunks."""
        with self._active.using() as now:
            job, run = await self._begin(request.generation, now)
            async with run.entry:
                with self._calls.generation(job) as box:
                    while (events := await run.released(box)) is not None:
                        await _write(
                            context, responses.messages(run.request_id, events, self._runtime.token_text)
                        )
                reason, verdict = run.conclude()
        final = pb.Final(
            finish_reason=reason,
            verdict=responses.verdict(verdict),
            digests=now.said,
            refusal=refusal(now.policies.policies, verdict),
        )
        await context.write(pb.GenerateStreamResponse(request_id=run.request_id, final=final))

    async def ListPolicies(  # noqa: N802
        self, request: pb.ListPoliciesRequest, context: Context
    ) -> pb.ListPoliciesResponse:
        """List the loaded policies."""
        return self._active.now.listed

    async def ReloadPolicies(  # noqa: N802
        self, request: pb.ReloadPoliciesRequest, context: Context
    ) -> pb.ReloadPoliciesResponse:
        """Load the policy files again; what is wrong with them is the answer, and the set in force stays."""
        change = await self._reloader.reload()
        return pb.ReloadPoliciesResponse(
            digests=self._active.now.said, changed=change.changed, added=change.added, removed=change.removed
        )

    async def WatchDetections(self, request: pb.WatchDetectionsRequest, context: Context) -> None:  # noqa: N802
        """What is detected in everybody's requests."""
        await self._books.watch.serve(request, context)

    async def Inspect(self, request: pb.InspectRequest, context: Context) -> pb.InspectResponse:  # noqa: N802
        """The strongest features of every token."""
        asked = requests.inspection(request)
        prompt = await self._tokenise(asked.input, room=0, reply=False)
        tokens = await self._inspecting.run(lambda: self._runtime.inspect(prompt.ids, asked.top_k))
        return pb.InspectResponse(
            request_id=current_call().request_id,
            tokens=responses.inspected_tokens(tokens),
            coverage=responses.coverage(Coverage(len(prompt.ids), len(tokens), prompt.truncated)),
            digests=self._active.now.said,
        )

    async def _begin(self, message: pb.Generation, now: InForce) -> tuple[GenerationRequest, _Generation]:
        """What the engine is to run, and what becomes of its events."""
        asked = requests.generation(message)
        with under("generation"):
            self._runtime.check_clamps(asked.clamps)
        # A prompt that was cut to fit must leave room for an answer; one that fits needs room for a token.
        wanted = min(asked.sampling.max_new_tokens, self._runtime.context // 2)
        prompt = await self._tokenise(asked.input, room=wanted if asked.input.truncate else 1, reply=True)
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
        return job, _Generation(call, judge, prompt, self._metrics, entry)

    async def _tokenise(self, asked: requests.Input, *, room: int, reply: bool) -> TokenisedPrompt:
        def work() -> TokenisedPrompt:
            return self._runtime.tokenise(asked.content, truncate=asked.truncate, room=room, reply=reply)

        with under(asked.path):
            prompt = work() if asked.size <= _SHORT else await self._tokenising.run(work)
        current_call().charged(len(prompt.ids))
        return prompt

    def _judge(self, now: InForce, asked: requests.Input) -> RequestJudge:
        runtime = self._runtime
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


async def _write(context: Context, messages: Iterable[pb.GenerateStreamResponse]) -> None:
    for message in messages:
        await context.write(message)
