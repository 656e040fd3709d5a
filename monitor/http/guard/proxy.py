"""The guard's methods: prompts are scored before they go to the upstream server, answers before they leave it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import replace
from typing import Any, Protocol

from starlette.routing import Route

from monitor.errors import BadRequest, MonitoringFailed, Violation
from monitor.guard import openai_texts
from monitor.guard.openai_texts import RequestText
from monitor.http.calls import Exchange, HttpCalls, dumps, ending_with
from monitor.http.errors import HttpError, UpstreamError
from monitor.http.fields import Fields, parse
from monitor.http.guard.guarded_choice import GuardedChoice
from monitor.http.guard.guarded_stream import GuardedStream
from monitor.http.guard.session import UPSTREAM_EXTENSION, GuardMode, GuardSession
from monitor.http.guard.upstream import Header, UpstreamAnswer, unpacked
from monitor.http.openai import verdicts
from monitor.http.openai.answers import Answer, ChatShape, Choice, CompletionShape, fingerprint
from monitor.http.openai.requests import EXTENSION, Extension, extension_in
from monitor.records import Failure, FinishReason
from monitor.rpc.error_status import REFUSED_TEXT
from monitor.rpc.policies import ActivePolicies
from monitor.rpc.runs import Ending
from monitor.rpc.watched_answer import WrittenText
from monitor.rpc.watches import Watches
from monitor.rpc.wire.problems import Problems
from monitor.rpc.wire.requests import Input
from monitor.telemetry.metrics.guard import GuardMetrics, WaitMetrics

METHODS = ("GuardChatCompletions", "GuardCompletions", "GuardOther")
"""Names of the methods in metrics, decision log and roles."""
ENVOY_METHODS = ("EnvoyChatCompletions", "EnvoyCompletions", "EnvoyOther")
"""The same of requests that come through Envoy."""
_ANSWER_TOKENS = 1024
"""Tokens of an answer that are charged to a caller who does not say how many it wants."""
_MOST_CHOICES = 128
_REQUEST_ID = "x-sae-monitor-request-id"
_JSON = "application/json"
_NOTHING_SENT = ("GET", "HEAD", "OPTIONS", "DELETE")
_STORED = frozenset(
    (
        "completions",
        "responses",
        "conversations",
        "threads",
        "files",
        "batches",
        "evals",
        "slots",
        "stream",
        "streams",
    )
)
"""Parts of paths below which servers keep what models wrote. Of llama.cpp's, `/slots` has all prompts and answers, and
`/v1/stream` gives an answer again to whoever names its conversation."""


class Behind(Protocol):
    """How the server behind the guard is reached."""

    def answer(
        self, scope: Any, body: bytes, *, encoding: str = ""
    ) -> AbstractAsyncContextManager[UpstreamAnswer]:
        """Send a request with this body, and give its answer. Raises UpstreamError where there is none."""


class GuardProxy:
    """The guard in front of one upstream server."""

    def __init__(
        self,
        calls: HttpCalls,
        watches: Watches,
        active: ActivePolicies,
        upstream: Behind,
        mode: GuardMode,
        metrics: GuardMetrics,
        waits: WaitMetrics,
        *,
        passes: frozenset[str],
        most_bytes: int,
        methods: tuple[str, str, str] = METHODS,
    ) -> None:
        """`passes` are paths that are passed on although they are not read; `most_bytes`: of an unpacked request."""
        self._calls, self._watches, self._active = calls, watches, active
        self._upstream, self._mode, self._metrics = upstream, mode, metrics
        self._passes, self._most_bytes = passes, most_bytes
        self._methods, self._waits = methods, waits
        self._contract = "envoy" if methods is ENVOY_METHODS else "guard"

    def routes(self) -> list[Route]:
        """Every path."""
        chat, text, other = self._methods
        return [
            Route("/v1/chat/completions", self._calls.endpoint(chat, self._chat), methods=["POST"]),
            Route("/v1/completions", self._calls.endpoint(text, self._completion), methods=["POST"]),
            Route("/{path:path}", self._calls.endpoint(other, self._other), methods=None),
        ]

    async def _chat(self, exchange: Exchange) -> None:
        with self._counted():
            await self._answer(exchange, chat=True)

    async def _completion(self, exchange: Exchange) -> None:
        with self._counted():
            await self._answer(exchange, chat=False)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count a fault of the upstream server."""
        try:
            yield
        except UpstreamError as error:
            self._metrics.fault(error.fault)
            raise

    async def _answer(self, exchange: Exchange, *, chat: bool) -> None:
        body = await self._body(exchange)
        extension = _extension(body)
        texts = [openai_texts.chat(body)] if chat else openai_texts.completions(body)
        each = _count(body)
        if each * len(texts) > _MOST_CHOICES:
            raise BadRequest(
                Violation("n", f"asks for too many answers; at most {_MOST_CHOICES} may be asked")
            )
        field = "messages" if chat else "prompt"
        prompts = [_input(extension, field, text) for text in texts]
        session = GuardSession(
            self._watches,
            prompts,
            self._mode,
            self._waits,
            contract=self._contract,
            per_prompt=each,
            expected=_expected(body),
            calls=[extension.input(call.name, call.text) for text in texts for call in text.calls],
        )
        with ending_with(exchange):
            async with session:
                await session.begin()
                if session.blocked:
                    self._metrics.blocked()
                    await self._refuse(exchange, session, body, chat=chat)
                else:
                    await self._forward(exchange, session, body, chat=chat)

    async def _body(self, exchange: Exchange) -> dict[str, Any]:
        """The JSON object of a request, unpacked. Raises HttpError where it cannot be read."""
        kind = exchange.header("content-type").split(";")[0].strip().lower()
        # Another type is what a web page may send to any address without asking.
        if kind != _JSON:
            raise HttpError(415, "send the body as JSON, with the header `content-type: application/json`")
        body = await self._calls.read_bytes(exchange)
        found = unpacked(body, exchange.header("content-encoding").strip().lower(), self._most_bytes)
        if found is None:
            raise HttpError(415, "send the body without compression, or with gzip or deflate")
        return parse(found)

    async def _refuse(
        self, exchange: Exchange, session: GuardSession, body: Mapping[str, Any], *, chat: bool
    ) -> None:
        """Answer a prompt that a policy blocks; the upstream server never sees it."""
        concluded = [await choice.conclude(FinishReason.POLICY) for choice in session.choices.values()]
        every = [*concluded, *(call.ending for call in session.calls.verdicts)]
        blocked = next((w for w in every if w.verdict.action.name == "BLOCK"), every[0])
        ending = Ending(FinishReason.POLICY, blocked.verdict, blocked.refusal, 0)
        watch = next(iter(session.choices.values())).watch
        shape = ChatShape() if chat else CompletionShape()
        model = body.get("model")
        name = model if isinstance(model, str) else ""
        answer = Answer(shape, exchange.request_id, name, fingerprint(watch.now.digests))
        choices = [Choice([], ending, watch.prompt_tokens) for _ in range(session.count)]
        said = session.extension(exchange.request_id)
        if body.get("stream") is not True:
            content = answer.whole(choices, session.count) | {EXTENSION: said}
            await exchange.json(content, verdicts.headers(session.verdicts()))
            return
        for index in range(session.count):
            opening = shape.opening()
            if opening is not None:
                await exchange.event(answer.chunk(index, opening))
            chunk = answer.chunk(index, shape.closing(ending), "content_filter")
            last = {EXTENSION: said} if index == session.count - 1 else {}
            await exchange.event(chunk | last)
        await exchange.done()

    async def _forward(
        self, exchange: Exchange, session: GuardSession, body: dict[str, Any], *, chat: bool
    ) -> None:
        """Ask the upstream server, and pass its answer on as far as it may leave."""
        sent = dumps({name: value for name, value in body.items() if name != EXTENSION})
        async with self._upstream.answer(_as_json(exchange.scope), sent) as found:
            session.answered(found.request_id)
            if found.status >= 400:
                await self._failed_upstream(exchange, session, found)
            elif not found.readable:
                await self._unreadable(exchange, session, found)
            elif found.kind == "text/event-stream":
                exchange.stream_headers = _stream_headers(found)
                await GuardedStream(exchange, session, found, chat=chat).run()
            else:
                await self._whole(exchange, session, found)

    async def _failed_upstream(
        self, exchange: Exchange, session: GuardSession, found: UpstreamAnswer
    ) -> None:
        """Pass an error of the upstream server on as it is, but for what a model wrote in it that may not leave."""
        if not found.readable:
            text = "the upstream server answers with this status, in a coding that cannot be read here"
            raise UpstreamError(found.status, text, "status")
        self._metrics.fault("status")
        content = await found.content()
        told = _object(content) or {}
        first = session.choices[min(session.choices)]
        await first.write(openai_texts.beside(told))
        await session.scored()
        if first.blocked:
            content = dumps(openai_texts.without_beside(told))
        for choice in session.choices.values():
            await choice.conclude(FinishReason.ERROR)
        await self._send(exchange, found, content, verdicts.headers(session.verdicts()))

    async def _unreadable(self, exchange: Exchange, session: GuardSession, found: UpstreamAnswer) -> None:
        """An answer that cannot be unpacked: not scored, so that a closed policy refuses it."""
        for choice in session.choices.values():
            choice.watch.unreadable()
            await choice.conclude()
        await self._pipe(exchange, found, verdicts.headers(session.verdicts()))

    async def _whole(self, exchange: Exchange, session: GuardSession, found: UpstreamAnswer) -> None:
        """Score a whole answer, take out what may not leave, and send the rest."""
        content = _object(await found.content())
        if content is None or not isinstance(content.get("choices"), list):
            text = "the upstream server's answer is no completion, and cannot be read"
            raise UpstreamError(502, text, "unreadable")
        if EXTENSION in content:
            content[UPSTREAM_EXTENSION] = content.pop(EXTENSION)
        given = content["choices"]
        if len(given) > session.count or not all(isinstance(choice, dict) for choice in given):
            raise UpstreamError(
                502, "the upstream server's answer has choices that cannot be read", "unreadable"
            )
        places = [choice.get("index") for choice in given]
        if sorted(place for place in places if isinstance(place, int)) != list(range(len(given))):
            places = list(range(len(given)))
        written = [await self._written(session, n, one) for n, one in zip(places, given, strict=True)]
        first = min(session.choices)
        await session.choices[first].write(openai_texts.beside(content))
        await session.scored()
        if session.blocked:
            content = openai_texts.without_beside(content)
        for (choice, parts), one in zip(written, given, strict=True):
            await _finished(choice, parts, one)
        for choice in session.choices.values():
            if not choice.concluded:  # it was asked for and not given
                await choice.conclude()
        content[EXTENSION] = session.extension(exchange.request_id)
        await self._send(exchange, found, dumps(content), verdicts.headers(session.verdicts()))

    async def _written(
        self, session: GuardSession, place: int, given: Mapping[str, Any]
    ) -> tuple[GuardedChoice, list[WrittenText]]:
        choice = await session.choice(place)
        choice.finish = str(given.get("finish_reason"))
        return choice, await choice.write(openai_texts.answer(given))

    async def _send(
        self, exchange: Exchange, found: UpstreamAnswer, content: bytes, ours: Mapping[str, str]
    ) -> None:
        """Send a body under the status and headers of the upstream server."""
        kept = found.headers(whole=False)
        if found.kind == _JSON:
            kept = _replaced(kept)
        headers = [*kept, *_raw(exchange, ours)]
        headers.append((b"content-length", str(len(content)).encode()))
        await exchange.begin(found.status, headers)
        await exchange.piece(content, more=False)

    async def _other(self, exchange: Exchange) -> None:
        """Pass a request on that is not read, unless a policy is closed and it holds text."""
        body = await self._calls.read_bytes(exchange)
        path = str(exchange.scope["path"])
        stored = not _STORED.isdisjoint(path.lower().split("/"))
        quiet = exchange.scope["method"] in _NOTHING_SENT and not body and not stored
        if quiet or path in self._passes:
            if not quiet:
                self._metrics.unread("allowed")
            with ending_with(exchange):
                await self._pass(exchange, body, {} if quiet else _unknown())
            return
        await self._unread(exchange, body)

    async def _unread(self, exchange: Exchange, body: bytes) -> None:
        if self._active.now.policies.policies and any(
            policy.closed and policy.enforced for policy in self._active.now.policies.policies
        ):
            self._metrics.unread("refused")
            raise MonitoringFailed(REFUSED_TEXT, Failure.LEFT_OUT)
        self._metrics.unread("passed")
        with ending_with(exchange):
            await self._pass(exchange, body, _unknown())

    async def _pass(self, exchange: Exchange, body: bytes, ours: Mapping[str, str]) -> None:
        encoding = exchange.header("content-encoding")
        async with self._upstream.answer(exchange.scope, body, encoding=encoding) as found:
            await self._pipe(exchange, found, ours)

    async def _pipe(self, exchange: Exchange, found: UpstreamAnswer, ours: Mapping[str, str]) -> None:
        """Pass an answer on as it comes."""
        await exchange.begin(found.status, [*found.headers(whole=True), *_raw(exchange, ours)])
        async for piece in found.raw():
            await exchange.piece(piece, more=True)
        await exchange.piece(b"", more=False)


async def _finished(choice: GuardedChoice, parts: Sequence[WrittenText], given: Any) -> None:
    """Conclude a whole choice, and take out of it what may not leave."""
    if choice.blocked:
        said = "".join(_allowed_of(parts))
        for text in choice.texts:
            if not text.name:  # of calls nothing leaves
                text.watch.released(text.watch.allowed, said)
        watched = await choice.conclude(FinishReason.POLICY)
        _blocked(given, said, watched.refusal)
        return
    for part in parts:
        part.watch.released(part.end, part.text)
    for watch in choice.watches:
        watch.left_unread += max(0, watch.written - watch.scored)
    await choice.conclude()


def _allowed_of(parts: Sequence[WrittenText]) -> Iterator[str]:
    """What is said, as far as it may leave."""
    for part in parts:
        if part.place == "content":
            yield part.text[: part.allowed]
            if not part.may_leave:
                return


def _blocked(given: dict[str, Any], said: str, refusal: str) -> None:
    """Make a choice what may leave of it."""
    chat = "text" not in given
    index = given.get("index", 0)
    given.clear()
    message = {"role": "assistant", "content": said, "refusal": refusal or None}
    given |= {"index": index, **({"message": message} if chat else {"text": said})}
    given |= {"logprobs": None, "finish_reason": "content_filter"}


def _object(body: bytes) -> dict[str, Any] | None:
    """The JSON object in a body; None where it is anything else."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _extension(body: Mapping[str, Any]) -> Extension:
    """What a request says to the guard. Raises BadRequest where that is wrong."""
    problems = Problems()
    found = extension_in(Fields({EXTENSION: body.get(EXTENSION)}, problems))
    if found.clamps:
        problems.add(f"{EXTENSION}.clamps", "another server generates, which cannot be clamped; leave it out")
    problems.raise_any()
    return found


def _input(extension: Extension, field: str, text: RequestText) -> Input:
    content = text.content if isinstance(text.content, str) else list(text.content)
    if not content:
        raise BadRequest(Violation(field, "holds no text; write at least one character"))
    return replace(extension.input(field, content), unread=text.unread, truncate=False)


def _count(body: Mapping[str, Any]) -> int:
    found = body.get("n")
    whole = int(found) if isinstance(found, float) and found.is_integer() else found
    return whole if isinstance(whole, int) and not isinstance(whole, bool) and whole > 0 else 1


def _expected(body: Mapping[str, Any]) -> int:
    """Tokens of an answer, as far as its caller says."""
    for name in ("max_completion_tokens", "max_tokens"):
        if isinstance(found := body.get(name), int) and not isinstance(found, bool):
            return max(0, found)
    return _ANSWER_TOKENS


def _unknown() -> Mapping[str, str]:
    return {f"{verdicts.HEADER_PREFIX}status": "unknown"}


def _raw(exchange: Exchange, ours: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    pairs = {_REQUEST_ID: exchange.request_id} | dict(ours)
    return [(name.encode(), value.encode("latin-1")) for name, value in pairs.items()]


def _as_json(scope: Any) -> dict[str, Any]:
    """The scope of a request whose body is written anew. What its caller says of the body may be read otherwise there.

    Some servers decode a body as the `charset` beside its type says.
    """
    return dict(scope) | {"headers": _replaced(scope["headers"])}


def _replaced(headers: Sequence[Header]) -> list[Header]:
    """Headers with the type of JSON, which is UTF-8, and no other."""
    return [*(found for found in headers if found[0] != b"content-type"), (b"content-type", _JSON.encode())]


def _stream_headers(found: UpstreamAnswer) -> dict[str, str]:
    """Headers of the upstream server's that a stream keeps: those about its request and its limits."""
    kept = ("x-request-id", "openai-", "x-ratelimit-", "retry-after")
    return {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in found.headers(whole=False)
        if name.decode("latin-1").startswith(kept)
    }
