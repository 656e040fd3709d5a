"""One generation from submission to its last event: its tokens, its clamps, its text, and how far it was scored."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as Items
from contextlib import ExitStack

from monitor.errors import MonitorError, MonitoringFailed, NotComputed
from monitor.model.engine.detokenizer import Telling, TextStream, Vocabulary
from monitor.model.engine.readout import Taken
from monitor.model.engine.requests import Emit, Event, Finished, GenerationRequest, Released
from monitor.model.engine.sampler import Draw, Likelihoods
from monitor.model.tap.clamps import ClampRow, merge
from monitor.model.tap.span import Span
from monitor.model.tap.suppression_check import Check, Watched
from monitor.records import (
    Action,
    Clamp,
    Coverage,
    Decision,
    Detection,
    FinishReason,
    Phase,
    ScoredTokens,
    TokenLogprobs,
)

FAILED = "the response could not be monitored and was withheld"
"""What callers are told; the cause is for the operator."""
NO_NUMBER = "the model computed what is no number; no more can be generated"


class Outbox:
    """The events of a pass for one of those who submit requests: collected, and delivered once at its end."""

    def __init__(self, emit: Emit) -> None:
        self.emit = emit
        self.users = 0
        """Requests that have not ended."""
        self.events: list[tuple[str, Event]] = []
        """Of requests, by their ids, in order."""

    def deliver(self) -> None:
        """Hand over what was collected."""
        if self.events:
            events, self.events = self.events, []
            self.emit(events)


class Sequence:
    """State of one request, which ends after `limit` new tokens. Methods run on the engine thread."""

    __slots__ = (
        "_checks",
        "_clamped",
        "_drawn",
        "_end_ids",
        "_limit",
        "_past",
        "_plain",
        "_released",
        "_sinks",
        "_telling",
        "_text",
        "_unscored",
        "_vocabulary",
        "clampings",
        "clamps",
        "draw",
        "ended",
        "held",
        "ids",
        "observer",
        "outbox",
        "places",
        "prompt",
        "request",
        "request_id",
        "row",
        "scored",
        "slot",
        "started",
        "suppressing",
        "suspect",
    )

    def __init__(
        self,
        request: GenerationRequest,
        outbox: Outbox,
        vocabulary: Vocabulary,
        end_ids: frozenset[int],
        limit: int,
    ) -> None:
        self.request, self.request_id = request, request.request_id
        self.observer, self.slot = request.observer, request.observed.slot
        self.draw = Draw(request.sampling, request.logprobs)
        self.outbox = outbox
        self.ids = list(request.prompt_ids)
        self.prompt = len(self.ids)
        """Tokens of the prompt."""
        self.scored = 0
        """The cursor: the rules were shown the tokens below this position, and what is not withheld was released."""
        self.started = False
        """True once it was in a pass."""
        self.suspect = False
        """True where its keys and values may hold what is no number."""
        self.ended = False
        self.held = ExitStack()
        """Gives back, when it is closed, what the engine took for the request."""
        self.clamps: tuple[Clamp, ...] = ()
        self.clampings = 0
        """How often its clamps have changed."""
        self.row: ClampRow | None = None
        """The clamps as the tap wants them; the engine fills it in when `clamps` changes."""
        self.suppressing: tuple[str, ...] = ()
        """Policies whose clamps are among them."""
        self.places: dict[str, Watched] = {}
        """Where passes leave what becomes of them, by policy; the engine fills it in with `row`."""
        self._vocabulary = vocabulary
        self._text = TextStream(vocabulary, request.sampling.stop, request.prompt_ids)
        self._end_ids, self._limit = end_ids, limit
        self._past: list[tuple[int, ClampRow | None]] = []
        """Clamps that no longer hold, each with the position before which they did."""
        asked = request.logprobs is not None
        self._drawn: deque[Likelihoods] = deque()
        """Of drawn tokens whose text was not made yet, where its caller asked."""
        self._telling = Telling[tuple[int, Likelihoods]](self._text) if asked else None
        self._plain = not (request.include_tokens or request.sampling.stop or asked)
        """True where of a token only its text is wanted, which nothing ends."""
        self._unscored = self._clamped = self._sinks = 0
        self._released: int | None = None
        """Where positions from some below `scored` on were withheld: the first of those."""
        self._checks = {plan.policy: Check(plan) for plan in request.plans}
        self._clamp(request.observed.first)

    @property
    def remaining(self) -> int:
        """New tokens that may still be drawn."""
        return self._limit - (len(self.ids) - self.prompt)

    @property
    def released(self) -> int:
        """Positions below this one were released to the caller."""
        return self.scored if self._released is None else self._released

    def clamped(self, span: Span) -> list[tuple[Span, ClampRow | None]]:
        """Rows of a pass, in parts of one set of clamps each: those of the time at which a position first ran.

        A sequence that transformers evicted and runs again must become what it was: clamps that began in the midst of
        it do not reach back to its start.
        """
        now = self.row if self.clamps else None
        if not self._past:
            return [(span, now)]
        first, end, parts = span.position, span.position + span.count, []
        for until, row in [*self._past, (end, now)]:
            if first < (stop := min(until, end)):
                rows = span.first + first - span.position
                parts.append(
                    (Span(span.request_id, rows, stop - first, first, span.draws and stop == end), row)
                )
                first = stop
        return parts

    def look(self, taken: Taken, span: Span) -> None:
        """Note what clamps did to the tokens of a span that are new."""
        new = max(0, self.scored - span.position)
        rows = slice(span.first + new, span.first + span.count)
        if taken.edited is None or new >= span.count:
            return
        self._clamped += int(taken.edited[rows].sum())
        for name, place in self.places.items():
            self._checks[name].add(taken.check(rows, place))

    def saw(self, end: int, decision: Decision | None, taken: Taken, span: Span) -> None:
        """The rules have seen the tokens up to position `end`; None: and had nothing to say that is new."""
        start, self.scored = self.scored, end
        if taken.sinks is not None and (decision is None or decision.failure is None):
            self._sinks += taken.sinks_in(slice(span.first + start - span.position, span.first + span.count))
        if decision is None and self._plain and end - start == 1 and start >= self.prompt:
            # Most tokens: one more of a response, of which nothing but its text is wanted.
            if text := self._text.push(self.ids[start]):
                self.outbox.events.append((self.request_id, Released(text)))
            return
        if decision is not None:
            self._clamp(decision)
            self._unscored += 0 if decision.failure is None else end - start
            if decision.action is Action.BLOCK:
                self._withhold(start, decision)
                return
        text, logprobs = self._write(start, end) if end > self.prompt else ("", ())
        detections = () if decision is None else decision.detections
        tokens = self._tokens(start, taken, span) if self.request.include_tokens else None
        if text or tokens is not None or detections or logprobs:
            self._post(text, tokens, detections, logprobs)
        if self._text.stopped:
            self.end(FinishReason.STOP)

    def drew(self, token_id: int, likely: Likelihoods | None = None, *, broken: bool = False) -> None:
        """The model chose the next token. It is released once the next pass has scored it.

        `likely` is there where its caller asked for log-probabilities; raises RuntimeError where it is missing then.
        `broken`: from logits that are no numbers, so that it means nothing and nothing can follow it. Where policies
        go on although a reading failed (`on_error: open`), the verdict says so already, and what was released stands.
        """
        if self.ended or len(self.ids) > self.scored:
            return
        self.draw.taken()
        if broken and not self._unscored:
            self.end(FinishReason.ERROR, NotComputed(NO_NUMBER))
        elif token_id in self._end_ids and not broken:
            self.end(FinishReason.STOP)
        elif broken or len(self.ids) - self.prompt >= self._limit:
            self.end(FinishReason.LENGTH)
        else:
            self.ids.append(token_id)
            if self._telling is not None:
                if likely is None:
                    raise RuntimeError("a token was drawn without the log-probabilities that were asked for")
                self._drawn.append(likely)

    def end(self, reason: FinishReason, error: MonitorError | None = None) -> None:
        """Post the last event, once."""
        if self.ended:
            return
        if reason in (FinishReason.STOP, FinishReason.LENGTH):
            rest = self._text.finish()
            told = () if self._telling is None else self._told(self._telling.finished(rest))
            if rest or told:
                self.outbox.events.append((self.request_id, Released(rest, logprobs=told)))
            # A stop string may stand in what was held back until now.
            reason = FinishReason.STOP if self._text.stopped else reason
        self._last(self._finished(reason, error))

    def fail(self, error: MonitorError) -> None:
        """Post the last event, once, where something failed that may fail again: text and checks are left alone."""
        if not self.ended:
            scored = self.scored - self._unscored
            coverage = Coverage(self.scored, scored, self.request.tokens_truncated, tokens_sinks=self._sinks)
            generated = max(0, self.released - self.prompt)
            self._last(
                Finished(FinishReason.ERROR, coverage, self.released, generated, self._clamped, error=error)
            )

    def withhold(self, position: int) -> None:
        """Note that tokens from a position on were not released."""
        if self._released is None:
            self._released = position

    def _last(self, event: Finished) -> None:
        self.ended = True
        self.outbox.events.append((self.request_id, event))

    def _finished(self, reason: FinishReason, error: MonitorError | None) -> Finished:
        scored = self.scored - self._unscored
        return Finished(
            reason=reason,
            coverage=Coverage(self.scored, scored, self.request.tokens_truncated, tokens_sinks=self._sinks),
            released=self.released,
            tokens_generated=max(0, self.released - self.prompt),
            tokens_clamped=self._clamped,
            suppressions=tuple(check.found() for check in self._checks.values() if check.begun),
            error=error,
            ids=tuple(self.ids[: self.released]),
        )

    def _write(self, start: int, end: int) -> tuple[str, tuple[TokenLogprobs, ...]]:
        """The text of response tokens, and what is told with it; behind a stop string nothing is released."""
        text, push = "", self._text.push
        told: list[tuple[int, tuple[int, Likelihoods]]] = []
        for position in range(max(start, self.prompt), end):
            piece = push(self.ids[position])
            text += piece
            if self._telling is not None:
                drawn = position, self._drawn.popleft()
                told += self._telling.pushed(self.ids[position], drawn, piece)
            if self._text.stopped:
                self._released = position + 1
                break
        return text, self._told(told)

    def _told(self, found: Items[tuple[int, tuple[int, Likelihoods]]]) -> tuple[TokenLogprobs, ...]:
        """Log-probabilities that may leave."""
        return tuple(
            TokenLogprobs(position, offset, self.ids[position], likely.logprob, likely.likeliest)
            for offset, (position, likely) in found
        )

    def _tokens(self, start: int, taken: Taken, span: Span) -> ScoredTokens | None:
        """Tokens from a position on with their readings, as far as they are released."""
        count = self.released - start
        if count <= 0:
            return None
        first = span.first + start - span.position
        phase = Phase.PROMPT if start < self.prompt else Phase.RESPONSE
        ids = tuple(self.ids[start : start + count])
        slots = () if self.row is None else self.row.slots
        return taken.tokens(phase, start, ids, first, self.request.lease, slots)

    def _post(
        self,
        text: str,
        tokens: ScoredTokens | None,
        detections: tuple[Detection, ...],
        logprobs: tuple[TokenLogprobs, ...] = (),
    ) -> None:
        known = self.ids[: self.released]
        seen = tuple(self._vocabulary.respelled(found, known) for found in detections)
        self.outbox.events.append((self.request_id, Released(text, tokens, seen, self.released, logprobs)))

    def _withhold(self, start: int, decision: Decision) -> None:
        """End the request; tokens from a position on are never shown."""
        self._released = start
        if decision.detections:
            self._post("", None, decision.detections)
        failure = decision.failure
        self.end(FinishReason.POLICY, None if failure is None else MonitoringFailed(FAILED, failure))

    def _clamp(self, decision: Decision) -> None:
        if not (decision.clamps or self.request.clamps or self.clamps):
            return
        clamps = merge(decision.clamps, self.request.clamps)
        if clamps != self.clamps or decision.suppressing != self.suppressing:
            if self.scored > (self._past[-1][0] if self._past else 0):
                self._past.append((self.scored, self.row if self.clamps else None))
            self.clamps, self.row, self.places = clamps, None, {}
            self.suppressing = decision.suppressing
            self.clampings += 1


def ran_others(sequence: Sequence, span: Span, ids: Items[int]) -> bool:
    """True where a pass ran other tokens than the sequence's in its places, or left out some that were not scored."""
    if span.position > sequence.scored:
        return True
    if span.count == 1:
        return span.position >= len(sequence.ids) or ids[span.first] != sequence.ids[span.position]
    ran = ids[span.first : span.first + span.count]
    return ran != sequence.ids[span.position : span.position + span.count]
