"""One generation from submission to its last event.

Knows the request's tokens, its observer and its clamps. Does not know batches or slots: the engine hands it the rows
of each pass and does what it says.
"""

from __future__ import annotations

from typing import Any

from monitor.errors import MonitorError, MonitoringFailed, NotComputed
from monitor.model.engine.detokenizer import TextStream
from monitor.model.engine.outbox import Outbox
from monitor.model.engine.requests import Emit, Finished, GenerationRequest
from monitor.model.engine.rows import Rows, why_unscored
from monitor.model.engine.sampler import Draw
from monitor.model.engine.stages import Stages
from monitor.model.tap.clamps import ClampRow, merge
from monitor.model.tap.span import Span
from monitor.model.tap.suppression_check import Check, Watched
from monitor.records import Action, Clamp, Coverage, Decision, FinishReason, Phase, TokenBlock, TokenText

FAILED = "the response could not be monitored and was withheld"
"""What callers are told; the cause is for the operator."""
NO_NUMBER = "the model computed what is no number; no more can be generated"


class Track:
    """State of one request, which ends after `limit` new tokens. Methods run on the engine thread."""

    def __init__(
        self,
        request: GenerationRequest,
        emit: Emit,
        tokenizer: Any,
        token_text: TokenText,
        end_ids: frozenset[int],
        limit: int,
    ) -> None:
        self.request = request
        self.draw = Draw(request.sampling)
        self.ids = list(request.prompt_ids)
        self.clamps: tuple[Clamp, ...] = ()
        self.row: ClampRow | None = None
        """The clamps as the tap wants them; the engine fills it in when `clamps` changes."""
        self._stages = Stages()
        self.suppressing: tuple[str, ...] = ()
        """Policies whose clamps are among them."""
        self.places: dict[str, Watched] = {}
        """Where passes leave what becomes of them, by policy; the engine fills it in with `row`."""
        self.ended = False
        self.restarting = False
        """The sequence must be run again from its start; the engine does it and calls `again`."""
        self.runs = 0
        """How often it was run again."""
        self._emit = emit
        text = TextStream(tokenizer, request.sampling.stop, request.prompt_ids)
        self._outbox = Outbox(emit, text, token_text, tokens=request.include_tokens)
        self._end_ids = end_ids
        self._prompt = len(request.prompt_ids)
        self._limit = limit
        self._run = self._scored = self._clamped = self._rewound = self._looked = 0
        self._checks = {plan.policy: Check(plan) for plan in request.plans}
        self._failure = ""
        self._upcoming: TokenBlock | None = None
        self._lag = 0
        self._clamp(request.observer.begin())

    @property
    def run_id(self) -> str:
        """Under which name the batcher runs it; another one each time it is run again."""
        return f"{self.request.request_id}~{self.runs}" if self.runs else self.request.request_id

    def clamped(self, span: Span) -> list[tuple[Span, ClampRow | None]]:
        """Rows of a pass with the clamps under which each of them is to run: those of its position's time."""
        return self._stages.of(span, self.row if self.clamps else None)

    @property
    def rewound(self) -> int:
        """Tokens that were taken back so far."""
        return self._rewound

    @property
    def remaining(self) -> int:
        """New tokens that may still be drawn."""
        return self._limit - (len(self.ids) - self._prompt)

    def next_block(self, rows: Rows) -> TokenBlock | None:
        """The first block of these rows that `saw` is going to show to the rules; None where that is not sure."""
        end = rows.position + len(rows.readings)
        if self.ended or end <= self._run or not rows.clean or rows.fault:
            return None
        if self._run < self._prompt:
            self._upcoming = self._block(Phase.PROMPT, rows.part(self._run, min(end, self._prompt)))
        else:
            self._upcoming = self._block(Phase.RESPONSE, rows.part(self._run, end))
        return self._upcoming

    def _block(self, phase: Phase, rows: Rows) -> TokenBlock:
        """Rows as the rules are shown them; the very block that `next_block` announced, where it did."""
        block, self._upcoming = self._upcoming, None
        if block is not None and (block.phase, block.start) == (phase, rows.position):
            return block
        ids = tuple(self.ids[rows.position : rows.position + len(rows.readings)])
        return TokenBlock(phase, rows.position, ids, rows.readings)

    def saw(self, rows: Rows) -> None:
        """Rows of a pass, in token order. Positions that were seen before (a request that was evicted, or run again
        under clamps, is computed again) are not scored twice: what is read does not depend on clamps."""
        end = rows.position + len(rows.readings)
        if self.ended:
            return
        self._look(rows.part(self._looked, end), end)
        if end <= self._run:
            return
        if self._run < self._prompt:
            self._score(Phase.PROMPT, rows.part(self._run, min(end, self._prompt)))
        if not (self.ended or self.restarting) and end > self._prompt:
            self._score(Phase.RESPONSE, rows.part(self._run, end))

    def drew(self, token_id: int, *, broken: bool = False) -> None:
        """The model chose the next token. It is released once the next pass has scored it.

        `broken`: from logits that are no numbers, so that it means nothing. Where a policy goes on although its
        reading failed (`on_error: open`), the verdict says so already.
        """
        if self.ended or self.restarting or len(self.ids) > self._run:
            return
        self.draw.taken()
        if broken and not self._failure:
            self.end(FinishReason.ERROR, NotComputed(NO_NUMBER))
            return
        if token_id in self._end_ids:
            self.end(FinishReason.STOP)
        elif self.remaining <= 0:
            self.end(FinishReason.LENGTH)
        else:
            self.ids.append(token_id)

    def again(self) -> None:
        """The engine runs the sequence from its start, under the present clamps."""
        self.restarting = False
        self.runs += 1
        self._looked = 0
        self._stages = Stages()

    def end(self, reason: FinishReason, error: MonitorError | None = None) -> None:
        """Emit the last event, once."""
        if self.ended:
            return
        self.ended = True
        if reason in (FinishReason.STOP, FinishReason.LENGTH):
            self._outbox.finish()
            # A stop string may stand in what was held back until now.
            reason = FinishReason.STOP if self._outbox.stopped else reason
        self._emit(self._finished(reason, error))

    def _finished(self, reason: FinishReason, error: MonitorError | None) -> Finished:
        ran = self._run + self._rewound
        return Finished(
            reason=reason,
            coverage=Coverage(ran, self._scored, self.request.tokens_truncated, self._rewound),
            released=self._outbox.released,
            tokens_generated=max(0, self._outbox.released - self._prompt),
            tokens_clamped=self._clamped,
            suppressions=tuple(check.found() for check in self._checks.values() if check.begun),
            failure=self._failure,
            error=error,
        )

    def _look(self, rows: Rows, end: int) -> None:
        """Note what clamps did to tokens; once for each time that the sequence is run."""
        if end <= self._looked:
            return
        self._looked = end
        self._clamped += 0 if rows.edited is None else int(rows.edited.sum())
        for name, found in (rows.checks or {}).items():
            self._checks[name].add(found)

    def _score(self, phase: Phase, rows: Rows) -> None:
        self._run = rows.position + len(rows.readings)
        block = self._block(phase, rows)
        ids = block.token_ids
        unscored = rows.fault or ("" if rows.clean else why_unscored(rows.readings))
        decision, cause = self._observe(block, unscored)
        self._clamp(decision)
        if decision.action is Action.BLOCK:
            self._outbox.withhold(decision.detections)
            self.end(FinishReason.POLICY, MonitoringFailed(FAILED, cause) if cause else None)
            return
        self._outbox.put(phase, rows, ids)
        if decision.restart is not None:
            self._take_back(decision.restart)
        self._outbox.release(self._run if phase is Phase.PROMPT else self._ready(), decision.detections)
        if self._outbox.stopped:
            self.end(FinishReason.STOP)

    def _ready(self) -> int:
        """Positions below this one can no longer be taken back."""
        return max(self._prompt, self._run - self._lag, self._outbox.released)

    def _observe(self, block: TokenBlock, cause: str) -> tuple[Decision, str]:
        """The rules' decision, and why the block counts as unscored (empty where it was scored)."""
        observer = self.request.observer
        if not cause:
            try:
                decision = observer.observe(block)
            except Exception:  # noqa: BLE001  (a rule that crashes must not look clean or stop the engine)
                cause = "rule_error"
            else:
                self._scored += len(block.token_ids)
                return decision, ""
        self._failure = cause
        return observer.failed(cause), cause

    def _take_back(self, position: int) -> None:
        """Forget response tokens from a position on, none of which was released; the prompt stays."""
        keep = max(position, min(self._run, self._prompt), self._outbox.released)
        del self.ids[max(keep, self._prompt) :]
        self._outbox.take_back(keep)
        self._rewound += self._run - keep
        self._run = keep
        self.restarting = True

    def _clamp(self, decision: Decision) -> None:
        self._lag = decision.lag
        if not (decision.clamps or self.request.clamps or self.clamps):
            return
        clamps = merge(decision.clamps, self.request.clamps)
        if clamps != self.clamps or decision.suppressing != self.suppressing:
            self._stages.begin(self._run, self.row if self.clamps else None)
            self.clamps, self.row, self.places = clamps, None, {}
            self.suppressing = decision.suppressing
