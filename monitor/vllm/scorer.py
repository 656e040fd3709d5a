"""The scorer: texts are scored by passes of vLLM, beside those of generations, and draw one token that nobody sees."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol

import numpy as np
import structlog
from torch import Tensor

from monitor.errors import BadRequest, MonitorError, Overloaded, TooLong, Unavailable, Violation
from monitor.model.engine.paged import Steps
from monitor.model.engine.readout import Taken
from monitor.model.engine.requests import KEPT, Done, Read, ScoreJob, ScoreOutcome, StreamJob
from monitor.model.engine.scorer import ScoredPasses, Scoring, TextRows, hand_over, observe
from monitor.model.load.model import LoadedModel
from monitor.model.tap.span import Span

_log = structlog.get_logger(__name__)


class TextBatching(Protocol):
    """What runs the texts."""

    def add(self, request_id: str, prompt_ids: Sequence[int], max_new_tokens: int) -> None:
        """Queue a text."""

    def remove(self, request_id: str) -> None:
        """Drop a text."""

    def alive(self) -> bool:
        """True where texts are run."""


class CoreScorer(ScoredPasses):
    """The texts that vLLM runs to score them. `submit` and `cancel` may be called from any thread."""

    why_separate = ""
    why_whole = "vLLM runs a text as a whole"

    def __init__(
        self, loaded: LoadedModel, batching: Callable[[], TextBatching], *, waiting: int = 1024
    ) -> None:
        super().__init__()
        self._loaded, self._batching, self._capacity = loaded, batching, waiting
        self._texts: dict[str, Scoring] = {}
        self._lock = threading.Lock()
        self._stopping = False
        self._running = 0

    def start(self) -> None:
        """Begin to take texts; vLLM runs already."""

    def stop(self, grace: float) -> None:
        """End what waits. The engine, which stops before, has waited for what ran."""
        self._stopping = True
        self._end_all(Unavailable("the server is stopping"))

    def submit(self, job: ScoreJob, done: Done) -> None:
        """Queue a text; the outcome goes to `done` on vLLM's thread, those of a pass together.

        Raises Unavailable while stopping or after vLLM died, Overloaded where the queue is full, TooLong where the text
        is longer than the context, BadRequest where the model cannot run its ids.
        """
        self._loaded.check_ids(job.ids)
        if len(job.ids) > self._loaded.context:
            raise TooLong(
                Violation("input", f"is {len(job.ids)} tokens long; the context holds {self._loaded.context}")
            )
        batching = self._batching()
        with self._lock:
            if self._stopping or not batching.alive():
                raise Unavailable("the scorer does not run")
            if len(self._texts) >= self._capacity:
                raise Overloaded(f"{self._capacity} texts wait already; try again", retry_after=0.5)
            if job.request_id in self._texts:
                raise Unavailable(f"request id {job.request_id} runs already")
            text = Scoring(job, done)
            text.heard(job.observed.first, 0)
            if job.lease is not None:
                job.lease.acquire()
            self._texts[job.request_id] = text
        try:
            batching.add(_own(job.request_id), job.ids, 1)
        except BaseException:
            self._forget(text)
            raise
        if not batching.alive():
            self._end_all(Unavailable("the scorer does not run"))

    def cancel(self, request_id: str) -> None:
        """Drop a text; an unknown id is ignored."""
        if (text := self._texts.get(request_id)) is not None:
            self._forget(text)

    def open_stream(self, job: StreamJob, read: Read) -> NoReturn:
        """Raise BadRequest: texts that grow are read by the built-in engine alone."""
        raise BadRequest(Violation("input", f"cannot be read as it grows ({self.why_whole})"))

    def feed(self, request_id: str, ids: Sequence[int], *, response: bool) -> None:
        """Nothing: no stream was opened."""

    def end_stream(self, request_id: str) -> None:
        """Nothing: no stream was opened."""

    def queue_depth(self) -> int:
        """Texts that wait for their first pass."""
        return max(0, len(self._texts) - self._running)

    def running(self) -> int:
        """Texts in the last pass."""
        return self._running if self._texts else 0

    def healthy(self) -> bool:
        """True where vLLM runs."""
        return self._batching().alive()

    def before(self, spans: Sequence[Span]) -> None:
        """A pass is about to run: tell those who want to know that their texts begin."""
        for text, span in self._mine(spans):
            if span.position == text.position == 0 and not text.over:
                try:
                    text.job.admitted()
                except Exception as error:  # noqa: BLE001  (the other texts of the pass have no part in it)
                    self.fail(text, error)

    def after(self, spans: Sequence[Span], ids: Sequence[int], taken: Callable[[int], Taken]) -> None:
        """A pass is over: show the rules what was read of the texts in it, and deliver those that have ended."""
        mine = self._mine(spans)
        self._running = len(mine)
        if not mine:
            return
        rows: list[TextRows] = []
        for text, span in mine:
            if text.position < span.position or _ran_others(text, span, ids):
                self.fail(text, RuntimeError("vLLM ran other tokens than those of the text"))
                continue
            # What ran before an eviction runs again, and was judged.
            known = text.position - span.position
            if known < span.count:
                rows.append(TextRows(text, span.first + known, text.position, span.count - known))
        if not rows:
            self._passes += 1
            return
        read = taken(spans[-1].first + spans[-1].count)
        self._count(observe(rows, read, np.asarray(ids, np.int64)))
        over: list[tuple[Scoring, ScoreOutcome]] = []
        for part in rows:
            try:
                part.text.ran(part, read)
                if part.text.finished:
                    over.append((part.text, part.text.outcome()))
            except Exception as error:  # noqa: BLE001  (the other texts of the pass have no part in it)
                self.fail(part.text, error)
        self._deliver(over)

    def replay(self, spans: Sequence[Span], taken: Taken, ids: Sequence[int]) -> None:
        """As `ServedSteps.replay`."""
        self.before(spans)
        self.after(spans, ids, lambda _rows: taken)

    def died(self) -> None:
        """End every text with an error, because vLLM has failed."""
        self._end_all(Unavailable("the scorer does not run; the server must be restarted"))

    def text(self, request_id: str) -> Scoring | None:
        """The text that a batching knows by an id; None for other requests."""
        return self._texts.get(_bare(request_id))

    def _mine(self, spans: Sequence[Span]) -> list[tuple[Scoring, Span]]:
        found = ((self.text(span.request_id), span) for span in spans)
        return [(text, span) for text, span in found if text is not None]

    def fail(self, text: Scoring, error: Exception) -> None:
        """End a text that could not be run."""
        _log.error("a text could not be scored", request_id=text.request_id, error=type(error).__name__)
        self._fell()
        self._deliver([(text, text.failed(error))])

    def _end_all(self, error: MonitorError) -> None:
        self._deliver([(text, text.unfinished(error)) for text in list(self._texts.values())])

    def _deliver(self, outcomes: Sequence[tuple[Scoring, ScoreOutcome]]) -> None:
        """Hand over texts that have ended, but those that were dropped before."""
        hand_over([(text, outcome) for text, outcome in outcomes if self._forget(text)])

    def _forget(self, text: Scoring) -> bool:
        """Drop a text; False where it was dropped before."""
        with self._lock:
            if self._texts.get(text.request_id) is not text:
                return False
            del self._texts[text.request_id]
        try:
            self._batching().remove(_own(text.request_id))
        except Exception as error:  # noqa: BLE001  (the text has ended all the same, and others run on)
            _log.error(KEPT, error=type(error).__name__)
        text.let_go()
        return True


class ServedSteps(Steps, Protocol):
    """The `Steps` of an engine, which also says how its requests stand."""

    def scored(self, request_id: str) -> int:
        """Tokens of a request, from its first, that the rules were shown."""

    def plain(self, request_id: str) -> bool:
        """True where what is read of a request's tokens would be read of them for any other."""

    def taken(self, rows: int) -> Taken:
        """What the pass that just ended wrote for its rows, so many, on the host; copied there once."""

    def launched(self) -> None:
        """Be told that the pass of the last `before` is on its way, so that the next may be laid out before it is over.

        What it writes is copied once it has. Called after `draw`, where tokens are drawn here.
        """

    def landed(self) -> None:
        """Be told that the first of the passes that are on their way is over: `taken` and `after` are about it."""

    def taken_back(self) -> list[str]:
        """Requests whose clamps changed while a further pass ran without the change, since the last time.

        What that pass draws and reads of them is ignored: their tokens from `scored` on must run again.
        """

    def replay(self, spans: Sequence[Span], taken: Taken, ids: Sequence[int]) -> None:
        """Show the rules what earlier passes read of tokens that will not run.

        `taken` has a row for each of the tokens `ids`, and `spans` say whose they are, as in a pass.
        """

    def lost(self, request_id: str) -> None:
        """Be told that vLLM has ended a request that was not over."""


class SharedSteps:
    """The `Steps` of an engine and of a scorer whose requests share the passes."""

    def __init__(self, engine: ServedSteps, scorer: Callable[[], CoreScorer | None]) -> None:
        self._engine, self._scorer = engine, scorer

    def ready(self, rows: int) -> None:
        """As `Steps.ready`."""
        self._engine.ready(rows)

    def before(self, spans: Sequence[Span], rows: int) -> None:
        """As `Steps.before`."""
        self._engine.before(spans, rows)
        if (scorer := self._scorer()) is not None:
            scorer.before(spans)

    def scored(self, request_id: str) -> int:
        """As `ServedSteps.scored`, of a text too."""
        scorer = self._scorer()
        known = None if scorer is None else scorer.text(request_id)
        return self._engine.scored(request_id) if known is None else known.position

    def plain(self, request_id: str) -> bool:
        """As `ServedSteps.plain`, of a text too."""
        scorer = self._scorer()
        known = None if scorer is None else scorer.text(request_id)
        return self._engine.plain(request_id) if known is None else not known.job.include_tokens

    def taken(self, rows: int) -> Taken:
        """As `ServedSteps.taken`."""
        return self._engine.taken(rows)

    def suspect(self) -> bool:
        """As `Steps.suspect`."""
        return self._engine.suspect()

    def draw(self, logits: Tensor) -> Tensor:
        """As `Steps.draw`."""
        return self._engine.draw(logits)

    def replays(self) -> bool:
        """As `Steps.replays`."""
        return self._engine.replays()

    def again(self) -> bool:
        """As `Steps.again`."""
        return self._engine.again()

    def after(self, spans: Sequence[Span], tokens: Sequence[int | None], ids: Sequence[int]) -> None:
        """As `Steps.after`."""
        if (scorer := self._scorer()) is not None:
            scorer.after(spans, ids, self._engine.taken)
        self._engine.after(spans, tokens, ids)

    def launched(self) -> None:
        """As `ServedSteps.launched`."""
        self._engine.launched()

    def landed(self) -> None:
        """As `ServedSteps.landed`."""
        self._engine.landed()

    def taken_back(self) -> list[str]:
        """As `ServedSteps.taken_back`; for texts nothing is clamped."""
        return self._engine.taken_back()

    def replay(self, spans: Sequence[Span], taken: Taken, ids: Sequence[int]) -> None:
        """As `ServedSteps.replay`, of texts too."""
        if (scorer := self._scorer()) is not None:
            scorer.replay(spans, taken, ids)
        self._engine.replay(spans, taken, ids)

    def lost(self, request_id: str) -> None:
        """As `ServedSteps.lost`, of a text too."""
        scorer = self._scorer()
        if scorer is not None and (text := scorer.text(request_id)) is not None:
            scorer.fail(text, RuntimeError("it was dropped before its end"))
        else:
            self._engine.lost(request_id)

    def died(self, error: BaseException) -> None:
        """As `Steps.died`."""
        if (scorer := self._scorer()) is not None:
            scorer.died()
        self._engine.died(error)


def _own(request_id: str) -> str:
    """The id of a text among all requests: a generation may have the same."""
    return f"score\x00{request_id}"


def _bare(request_id: str) -> str:
    kind, _, bare = request_id.partition("\x00")
    return bare if kind == "score" else ""


def _ran_others(text: Scoring, span: Span, ids: Sequence[int]) -> bool:
    ran = tuple(ids[span.first : span.first + span.count])
    return ran != text.job.ids[span.position : span.position + span.count]
