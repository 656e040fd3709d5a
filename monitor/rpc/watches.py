"""Watches: conversations whose answers another server writes, read along token by token under the rules.

A front door opens one for each answer, gives it the answer's text as it comes, and asks how much of that may leave.
Everything here runs inside a call that was admitted (`monitor.rpc.access`), on the event loop.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from monitor.errors import BadRequest, InputError, MonitorError, Overloaded, TooLong
from monitor.guard.settled_text import Settled, SettledText, Span
from monitor.model.engine.requests import Finished, Released, StreamJob, StreamRead
from monitor.records import Action, Coverage, Detection, Failure, FinishReason, Mode, Phase, Verdict
from monitor.rpc.access.call_interceptor import current_call, enter
from monitor.rpc.access.roles import caller
from monitor.rpc.calls import Calls
from monitor.rpc.decisions.ledger import Entry
from monitor.rpc.mailbox import Mailbox
from monitor.rpc.policies import ActivePolicies, InForce
from monitor.rpc.ports import ModelRuntime, RequestJudge, TokenisedPrompt
from monitor.rpc.runs import Runs, refuse_unread
from monitor.rpc.verdict import conclude, refusal, shown
from monitor.rpc.wire.requests import Input
from monitor.telemetry.metrics.guard import WaitResult
from monitor.telemetry.metrics.metrics import Metrics

_PORTION = 4096
"""Characters that are tokenised at once: of a very long text no more than the model can read."""


class WatchEnding(NamedTuple):
    """How the watching of an answer ended."""

    verdict: Verdict
    refusal: str
    """What the policy that blocked wants to be shown; empty where none did or it says nothing."""


class Patience(NamedTuple):
    """How long text waits to be scored, in seconds."""

    silent: float
    """Longest time in which nothing of it is scored."""
    longest: float | None
    """Longest time altogether; None for any."""


class AnswerWatch:
    """A conversation and its answer. `prompt` first; then `write`, `caught_up` and `allowed`; `conclude` at the end."""

    def __init__(
        self,
        runtime: ModelRuntime,
        metrics: Metrics,
        judge: RequestJudge,
        entry: Entry,
        prompt: TokenisedPrompt,
        now: InForce,
        patience: Patience,
    ) -> None:
        self.now, self.prompt_tokens = now, len(prompt.ids)
        self.left_unread = 0
        """Characters of the answer that left before they were read."""
        self.mode = ""
        """How the answer was held, for the record of the decision."""
        self.upstream_request_id = ""
        """The id that the server which answers gave to the request, for that record too."""
        self._runtime, self._metrics, self._judge, self._entry = runtime, metrics, judge, entry
        self._prompt, self._patience = prompt, patience
        self._request_id = current_call().request_id
        self._box: Mailbox[StreamRead]
        self._text = SettledText(self._tokenise)
        self._came = 0
        self._ids = list(prompt.ids)
        self._ends: list[int] = []
        """First character behind each token of the answer."""
        self._upto = 0
        """Characters that the tokens which were fed stand for."""
        self._coverage = Coverage(0, 0, prompt.truncated)
        self._ran = 0
        self._action = judge.action
        self._lost = False
        """True where nothing more of it is read."""
        self._unreadable = False
        self._found: list[Detection] = []
        self._stop: int | None = None
        """First character that a rule withholds."""
        self._released = 0

    @property
    def blocked(self) -> bool:
        """True where nothing more may leave: a rule blocks it, or it was not scored and a policy is closed."""
        return self._action is Action.BLOCK

    @property
    def result(self) -> WaitResult:
        """What became of it so far, as a label of metrics."""
        if self._lost or self._unreadable:
            return "not_scored"
        return "blocked" if self.blocked else "passed"

    @property
    def allowed(self) -> int:
        """Characters of the answer that may leave."""
        if self.blocked:
            return min(self._read_characters(), self._stop or 0)
        return self._came if self._lost else self._read_characters()

    @property
    def scored(self) -> int:
        """Characters of the answer whose tokens were read, whether or not more of it may leave."""
        return self._read_characters()

    @property
    def written(self) -> int:
        """Characters of the answer that came."""
        return self._came

    @property
    def unsettled(self) -> int:
        """Characters whose tokens the next piece may still change."""
        return 0 if self._lost else self._text.held

    @property
    def tokens(self) -> int:
        """Tokens of the answer that were given to the model."""
        return len(self._ends)

    async def prompt(self) -> None:
        """Have the conversation read, up to the answer."""
        self._feed(self._prompt.ids, response=False)
        await self.caught_up()

    def write(self, piece: str) -> None:
        """More of the answer has come."""
        self._came += len(piece)
        for begin in range(0, len(piece), _PORTION):
            if self._lost or self.blocked:
                return
            self._settled(partial(self._text.push, piece[begin : begin + _PORTION]))

    def settle(self) -> None:
        """Take all that came for whole words, so that it is read now."""
        if not (self._lost or self.blocked):
            self._settled(self._text.finish)

    async def caught_up(self) -> None:
        """Return once all that can be read was read, or a rule blocks, or it took too long.

        Too long is where nothing of it was read for a while, and where a policy does not let text wait for more.
        """
        try:
            async with asyncio.timeout(self._patience.longest):
                while not (self._lost or self.blocked) and self._ran < len(self._ids):
                    async with asyncio.timeout(self._patience.silent):
                        found = await self._box.read()
                    for read in found:
                        self._take(read)
        except TimeoutError:
            self._lose(Failure.INCOMPLETE)
        except MonitorError:
            self._lose(Failure.PASS_FAILED)

    def news(self) -> tuple[Detection, ...]:
        """Detections since the last time, as their caller may see them."""
        found, self._found = self._found, []
        return self._as_shown(found)

    def released(self, characters: int, text: str) -> None:
        """So many characters of the answer have left by now; `text` are the last ones."""
        if text and not self._released:
            self._metrics.first_token(current_call().age())
        self._released = max(self._released, characters)
        self._entry.released([Released(text)])

    def conclude(self, reason: FinishReason) -> WatchEnding:
        """The verdict, once the answer has ended.

        Raises MonitoringFailed where something was not scored and a policy is closed.
        """
        last = FinishReason.POLICY if self.blocked else reason
        coverage = self._coverage
        if self._lost:
            coverage = replace(coverage, tokens_run=max(coverage.tokens_run, len(self._ids)))
        self._entry.mode, self._entry.upstream_request_id = self.mode, self.upstream_request_id
        self._entry.finish = Finished(last, coverage, self._released_position(), self.tokens)
        verdict = conclude(
            self._judge,
            self._metrics,
            coverage,
            expected=0 if self.blocked else len(self._ids),
            judged=self._entry.judged,
        )
        seen = replace(verdict, detections=self._as_shown(verdict.detections))
        return WatchEnding(seen, refusal(self.now.policies.policies, verdict))

    def unreadable(self) -> None:
        """Something of the answer is not text, and cannot be scored."""
        self._unreadable = True
        self._fail(Failure.LEFT_OUT)

    def read_from(self, box: Mailbox[StreamRead]) -> None:
        """Where it is told how far the model has read."""
        self._box = box

    def _tokenise(self, text: str, _: bool) -> tuple[Sequence[int], Sequence[Span]]:
        return self._runtime.placed_behind(self._ids[-1], text)

    def _settled(self, settle: Callable[[], Settled]) -> None:
        try:
            found = settle()
            if found.ids:
                self._feed(found.ids, response=True)
        except (InputError, BadRequest, Overloaded):
            self._lose(Failure.INCOMPLETE)
            return
        self._ends += found.ends
        self._upto = found.upto

    def _feed(self, ids: Sequence[int], *, response: bool) -> None:
        try:
            self._runtime.scorer.feed(self._request_id, ids, response=response)
        except (BadRequest, Overloaded):
            if response:
                raise
            self._lose(Failure.INCOMPLETE)
            return
        if response:
            self._ids += ids

    def _take(self, read: StreamRead) -> None:
        self._coverage = replace(read.coverage, tokens_truncated=self._prompt.truncated)
        self._ran, self._action = read.coverage.tokens_run, max(self._action, read.action)
        self._found += read.detections
        blocking = [d for d in read.detections if d.action is Action.BLOCK and d.mode is Mode.ENFORCE]
        if blocking and self._stop is None:
            self._stop = min(self._begin_of(found) for found in blocking)
        if read.error is not None:
            self._lost = True

    def _begin_of(self, found: Detection) -> int:
        """The first character of the token at which a rule fired; 0 where that is in the prompt."""
        number = found.position - self.prompt_tokens
        return 0 if found.phase is Phase.PROMPT else self._characters_before(number)

    def _read_characters(self) -> int:
        """Characters whose tokens were read."""
        if self._ran >= len(self._ids):
            return self._upto
        return self._characters_before(self._ran - self.prompt_tokens)

    def _characters_before(self, number: int) -> int:
        """Characters before a token of the answer. It may be one of several that stand for the same character."""
        while 0 < number < len(self._ends) and self._ends[number - 1] == self._ends[number]:
            number -= 1
        return self._ends[number - 1] if number > 0 else 0

    def _as_shown(self, found: Sequence[Detection]) -> tuple[Detection, ...]:
        """Detections without what has not left yet."""
        position = self._released_position()
        ids = self._ids[:position]
        return tuple(self._runtime.respelled(one, ids) for one in shown(found, position))

    def _released_position(self) -> int:
        return self.prompt_tokens + bisect_right(self._ends, self._released)

    def _lose(self, cause: Failure) -> None:
        """Nothing more of it is read. Where no policy is closed it may leave all the same."""
        self._lost = True
        self._runtime.scorer.end_stream(self._request_id)
        self._fail(cause)

    def _fail(self, cause: Failure) -> None:
        self._action = max(self._action, self._judge.failed(cause).action)


def watch_result(watches: Iterable[AnswerWatch]) -> WaitResult:
    """What became of several watches together, as a label of metrics."""
    found = {watch.result for watch in watches}
    return next((one for one in ("not_scored", "blocked") if one in found), "passed")


class Watches:
    """The watches of one server."""

    def __init__(
        self, runtime: ModelRuntime, active: ActivePolicies, calls: Calls, metrics: Metrics, runs: Runs
    ) -> None:
        self._runtime, self._active, self._calls = runtime, active, calls
        self._metrics, self._runs = metrics, runs

    @asynccontextmanager
    async def open(
        self, asked: Input, *, seconds: float, expected: int, number: int = 0
    ) -> AsyncIterator[AnswerWatch]:
        """Begin a watch; its decision is in the log once the context was left.

        Args:
            asked: the conversation. What is too long for the model is cut, and counts as not scored.
            seconds: longest time in which the model reads nothing of what it was given.
            expected: tokens of the answer, which are charged to the caller.
            number: of the answer, where a request has several; each has a request id of its own.

        Raises:
            MonitoringFailed: a part of it cannot be scored and a policy is closed.
            Overloaded, Unavailable: nothing can be read now.
        """
        call = current_call()
        given, prompt = await self._tokenised(asked)
        call.charged(max(0, min(expected, self._runtime.context - len(prompt.ids))))
        if number:
            enter(replace(call, request_id=f"{call.request_id}-{number}"))
        try:
            with self._active.using() as now:
                judge, entry = self._runs.judge(now, given), self._runs.entry(given, now, prompt)
                entry.trail = trail = now.observers.open(judge)
                job = StreamJob(
                    current_call().request_id,
                    now.observers.trails,
                    judge,
                    lease=now.lease,
                    admitted=trail.admitted,
                )
                patience = Patience(seconds, _longest_wait(now, given))
                watch = AnswerWatch(self._runtime, self._metrics, judge, entry, prompt, now, patience)
                enter(call)
                async with entry:
                    refuse_unread(judge, prompt, given.unread, self._metrics, entry)
                    with self._calls.streaming(job) as box:
                        watch.read_from(box)
                        yield watch
        finally:
            enter(call)

    async def _tokenised(self, asked: Input) -> tuple[Input, TokenisedPrompt]:
        """The conversation as token ids, cut where it does not fit, and as one text where it is no conversation."""
        try:
            return asked, await self._runs.tokenise(replace(asked, truncate=False), room=1, reply=True)
        except TooLong:
            cut = replace(asked, truncate=True, unread=asked.unread + 1)
            return cut, await self._runs.tokenise(cut, room=self._runtime.context // 2, reply=True)
        except BadRequest:
            if isinstance(asked.content, str):
                raise
            # This model's template takes other conversations; the words can be read all the same.
            text = "\n\n".join(turn["content"] for turn in asked.content)
            return await self._tokenised(replace(asked, content=text))


def _longest_wait(now: InForce, asked: Input) -> float | None:
    """For how long text may wait, by the deadlines of the policies that act on a request; None where they set none.

    The shortest of those that are closed blocks what was not scored by then. Where all are open, text leaves unscored
    once none of them wants it to wait any longer.
    """
    names = now.policies.applying(caller.get().name, asked.labels)
    acting = [policy for policy in now.policies.policies if policy.name in names and policy.enforced]
    closed = [policy.deadline for policy in acting if policy.closed and policy.deadline is not None]
    if closed or any(policy.closed for policy in acting):
        return min(closed, default=None)
    waits = [policy.deadline for policy in acting]
    return max((wait for wait in waits if wait is not None), default=None) if all(waits) else None
