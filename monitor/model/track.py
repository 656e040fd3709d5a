"""One generation from submission to its last event.

Knows the request's tokens, its observer and its text. Does not know batches or slots: the engine hands it the rows
of each pass and does what it says.
"""

from __future__ import annotations

from typing import Any

from monitor.errors import MonitorError, MonitoringFailed
from monitor.model.clamping import ClampRow, merge
from monitor.model.requests import Emit, Finished, GenerationRequest, Released
from monitor.model.rows import Rows, why_unscored
from monitor.model.sampler import Draw
from monitor.model.text import TextStream
from monitor.records import (
    Action,
    Clamp,
    Coverage,
    Decision,
    Detection,
    FinishReason,
    Phase,
    ScoredToken,
    TokenBlock,
    TokenText,
)

FAILED = "the response could not be monitored and was withheld"
"""What callers are told; the cause is for the operator."""


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
        self.ended = False
        self._emit = emit
        self._text = TextStream(tokenizer, request.sampling.stop)
        self._token_text = token_text
        self._end_ids = end_ids
        self._prompt = len(request.prompt_ids)
        self._limit = limit
        self._run = 0
        self._scored = 0
        self._clamped = 0
        self._released = 0
        self._failure = ""
        self._clamp(request.observer.begin())

    def saw(self, rows: Rows) -> None:
        """Rows of a pass, in token order. Positions that were seen before (a request that was evicted and is
        computed again) are not scored twice."""
        end = rows.position + len(rows.readings)
        if self.ended or end <= self._run:
            return
        if self._run < self._prompt:
            self._score(Phase.PROMPT, rows.part(self._run, min(end, self._prompt)))
        if not self.ended and end > self._prompt:
            self._score(Phase.RESPONSE, rows.part(self._run, end))

    def drew(self, token_id: int) -> None:
        """The model chose the next token. It is released once the next pass has scored it."""
        if self.ended or len(self.ids) > self._run:
            return
        if token_id in self._end_ids:
            self.end(FinishReason.STOP)
        elif len(self.ids) - self._prompt >= self._limit:
            self.end(FinishReason.LENGTH)
        else:
            self.ids.append(token_id)

    def end(self, reason: FinishReason, error: MonitorError | None = None) -> None:
        """Emit the last event, once."""
        if self.ended:
            return
        self.ended = True
        rest = self._text.finish() if reason in (FinishReason.STOP, FinishReason.LENGTH) else ""
        if rest:
            self._emit(Released(rest))
        coverage = Coverage(self._run, self._scored, self.request.tokens_truncated)
        generated = max(0, self._released - self._prompt)
        self._emit(Finished(reason, coverage, self._released, generated, self._clamped, self._failure, error))

    def _score(self, phase: Phase, rows: Rows) -> None:
        self._run = rows.position + len(rows.readings)
        self._clamped += 0 if rows.edited is None else int(rows.edited.sum())
        ids = tuple(self.ids[rows.position : self._run])
        block = TokenBlock(phase, rows.position, ids, rows.readings)
        decision, cause = self._observe(block, rows.fault or ("" if rows.clean else why_unscored(rows.readings)))
        self._clamp(decision)
        if decision.action is Action.BLOCK:
            self._block(decision, cause)
        else:
            self._release(phase, rows, ids, decision.detections)

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

    def _block(self, decision: Decision, cause: str) -> None:
        if decision.detections:
            hidden = tuple(found.shown_below(self._released) for found in decision.detections)
            self._emit(Released("", (), hidden))
        self.end(FinishReason.POLICY, MonitoringFailed(FAILED, cause) if cause else None)

    def _release(
        self, phase: Phase, rows: Rows, ids: tuple[int, ...], detections: tuple[Detection, ...]
    ) -> None:
        text = ""
        if phase is Phase.RESPONSE:
            text = "".join(self._text.push(token_id) for token_id in ids)
        tokens = self._tokens(phase, rows, ids) if self.request.include_tokens else ()
        self._released = rows.position + len(ids)
        if text or tokens or detections:
            self._emit(Released(text, tokens, detections))
        if self._text.stopped:
            self.end(FinishReason.STOP)

    def _tokens(self, phase: Phase, rows: Rows, ids: tuple[int, ...]) -> tuple[ScoredToken, ...]:
        active = rows.active or [()] * len(ids)
        return tuple(
            ScoredToken(rows.position + offset, token_id, self._token_text(token_id), phase, active[offset])
            for offset, token_id in enumerate(ids)
        )

    def _clamp(self, decision: Decision) -> None:
        if not (decision.clamps or self.request.clamps or self.clamps):
            return
        clamps = merge(decision.clamps, self.request.clamps)
        if clamps != self.clamps:
            self.clamps, self.row = clamps, None
