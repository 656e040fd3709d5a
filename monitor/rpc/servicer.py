"""The servicer: the methods of MonitorService read the message, have it run and write the answer."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterable

from monitor.model.engine.requests import Released
from monitor.records import Coverage
from monitor.rpc.access.call_interceptor import Context, current_call
from monitor.rpc.access.roles import caller
from monitor.rpc.decisions.recorder import DecisionRecorder
from monitor.rpc.policies import ActivePolicies, Reloader
from monitor.rpc.ports import ModelRuntime
from monitor.rpc.runs import Runs
from monitor.rpc.score_stream import ScoreStreams
from monitor.rpc.thread_pool import ThreadPool
from monitor.rpc.wire import enums, requests, responses
from monitor.v1 import monitor_pb2 as pb


class MonitorServicer:
    """monitor.v1.MonitorService."""

    def __init__(
        self,
        runtime: ModelRuntime,
        active: ActivePolicies,
        reloader: Reloader,
        runs: Runs,
        books: DecisionRecorder,
        inspecting: ThreadPool,
        streams: ScoreStreams,
    ) -> None:
        self._runtime = runtime
        self._active = active
        self._reloader = reloader
        self._runs = runs
        self._books, self._streams = books, streams
        self._inspecting, self._messages = inspecting, runs.limits.messages

    async def Score(self, request: pb.ScoreRequest, context: Context) -> pb.ScoreResponse:  # noqa: N802
        """Score a text or a conversation."""
        found = await self._runs.score(
            requests.score(request, self._messages), include_tokens=request.include_tokens
        )
        return pb.ScoreResponse(
            request_id=current_call().request_id,
            verdict=responses.verdict(found.verdict),
            tokens=responses.scored_tokens([found.tokens], self._runtime.token_texts),
            digests=found.now.said,
        )

    async def Generate(self, request: pb.GenerateRequest, context: Context) -> pb.GenerateResponse:  # noqa: N802
        """Generate in one piece."""
        parts: list[Released] = []
        asked = requests.generation(request.generation, self._messages)
        requests.check_in_one([asked], self._runtime.context, "generation.logprobs", "max_new_tokens")
        async with self._runs.generation(asked) as run:
            while (events := await run.released()) is not None:
                parts += events
        return pb.GenerateResponse(
            request_id=run.request_id,
            text="".join(part.text for part in parts),
            finish_reason=enums.FINISH_REASON[run.ending.reason],
            verdict=responses.verdict(run.ending.verdict),
            tokens=responses.scored_tokens((part.tokens for part in parts), self._runtime.token_texts),
            digests=run.now.said,
            refusal=run.ending.refusal,
            logprobs=responses.token_logprobs(
                (found for part in parts for found in part.logprobs), self._runtime.token_spelling
            ),
        )

    async def GenerateStream(self, request: pb.GenerateStreamRequest, context: Context) -> None:  # noqa: N802
        """Generate in chunks."""
        texts, spell = self._runtime.token_texts, self._runtime.token_spelling
        async with self._runs.generation(requests.generation(request.generation, self._messages)) as run:
            while (events := await run.released()) is not None:
                await _write(context, responses.messages(run.request_id, events, texts, spell))
        final = pb.Final(
            finish_reason=enums.FINISH_REASON[run.ending.reason],
            verdict=responses.verdict(run.ending.verdict),
            digests=run.now.said,
            refusal=run.ending.refusal,
        )
        await context.write(pb.GenerateStreamResponse(request_id=run.request_id, final=final))

    async def ScoreStream(  # noqa: N802
        self, messages: AsyncIterator[pb.ScoreStreamRequest], context: Context
    ) -> None:
        """Score what another server is asked and writes, while it writes it."""
        await self._streams.serve(messages, context)

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
        asked = requests.inspection(request, self._messages)
        prompt = await self._runs.tokenise(asked.input, room=0, reply=False)
        gone = threading.Event()
        try:
            tokens = await self._inspecting.run(
                lambda: self._runtime.inspect(prompt.ids, asked.top_k, gone.is_set), caller.get().name
            )
        finally:
            gone.set()  # a thread cannot be interrupted, but what runs for nobody ends
        return pb.InspectResponse(
            request_id=current_call().request_id,
            tokens=responses.inspected_tokens(tokens),
            coverage=responses.coverage(
                Coverage(
                    len(prompt.ids), len(tokens), prompt.truncated, tokens_sinks=sum(t.sink for t in tokens)
                )
            ),
            digests=self._active.now.said,
        )


async def _write(context: Context, messages: Iterable[pb.GenerateStreamResponse]) -> None:
    for message in messages:
        await context.write(message)
