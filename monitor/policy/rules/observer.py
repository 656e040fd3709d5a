"""Rules at work on one request: blocks of readings in, detections, actions and clamps out.

Knows the state of one request. Does not know who computes readings or who acts on the answer. Anything that
was not scored (a gap, a NaN, a failure reported by the engine) makes the verdict UNKNOWN for good.
"""

from __future__ import annotations

import numpy as np

from monitor.policy.rules.accepting import Accepted, Applying
from monitor.policy.rules.batch import RULE_ERROR, RuleBatch
from monitor.policy.rules.detect import Member, Outcome, advance, rule_scores
from monitor.policy.rules.evidence import Tokens
from monitor.policy.rules.program import Program, strongest
from monitor.policy.rules.rewind import Rewinding
from monitor.policy.rules.sessions import LOST, SessionPools
from monitor.policy.rules.state import Masks, PhaseState
from monitor.policy.rules.suppression import Holding
from monitor.policy.rules.weights import active
from monitor.records import (
    Action,
    Coverage,
    Decision,
    Detection,
    Phase,
    RuleScore,
    Status,
    TokenBlock,
    TokenText,
    Verdict,
)

NON_FINITE = "non_finite"
"""A reading was NaN or infinite."""
SHAPE = "shape"
"""The readings do not have one row per token and one column per watched feature."""
GAP = "gap"
"""Tokens between two blocks were never shown."""
INCOMPLETE = "incomplete"
"""The model ran more tokens than were scored."""
MISCOUNTED = "miscounted"
"""Coverage claims more scored tokens than the rules were shown."""
NOT_RUN = "not_run"
"""No token was scored at all."""


class RequestObserver:
    """Implements `monitor.records.Observer` for one request. One thread at a time."""

    def __init__(
        self,
        program: Program,
        token_text: TokenText,
        special: frozenset[int],
        applying: Applying,
        *,
        batch: RuleBatch | None = None,
        session: SessionPools | None = None,
    ) -> None:
        self._program = program
        self._token_text = token_text
        self._special = special
        self._applying = applying
        self._session = session
        self._states: dict[Phase, PhaseState] = {}
        self._ahead: tuple[Accepted, Outcome] | None = None
        self._next = 0
        self._detections: list[Detection] = []
        self._action = Action.ALLOW
        self._holding = Holding(program, applying.policies)
        self._rewinding = Rewinding(program, applying.policies)
        self._restart: int | None = None
        self._failure = ""
        self.batch = batch
        """Who can score a block of this request together with blocks of others."""
        if session is not None and session.lost:
            self.failed(LOST)

    @property
    def status(self) -> Status:
        """UNKNOWN once anything could not be scored."""
        return Status.UNKNOWN if self._failure else Status.CHECKED

    @property
    def lead(self) -> RequestObserver:
        """Itself; what wraps an observer gives the inner one."""
        return self

    def begin(self) -> Decision:
        """Clamps of policies that suppress always."""
        return self._decision()

    def observe(self, block: TokenBlock) -> Decision:
        """Score a block. Tokens that were seen before (a step that was run again) are not counted twice."""
        earlier: tuple[Detection, ...] = ()
        self._restart = None
        if self._ahead is not None:
            (accepted, outcome), self._ahead = self._ahead, None
            if accepted.block is block:
                if accepted.cause == RULE_ERROR:
                    raise RuntimeError("a rule crashed")
                return self._finish(accepted, outcome)
            earlier = self._finish(accepted, outcome).detections
        accepted = self.accept(block)
        decision = self._finish(accepted, self.score(accepted))
        return self._decision((*earlier, *decision.detections))

    def failed(self, cause: str) -> Decision:
        """Tokens could not be scored; the first cause is kept."""
        self._failure = self._failure or cause
        if self._closed(cause):
            self._action = Action.BLOCK
        return self._decision()

    def verdict(self, coverage: Coverage) -> Verdict:
        """Everything about the request; UNKNOWN unless every token that was run was scored."""
        self._settle()
        shortfall = self._shortfall(coverage)
        failure = self._failure or shortfall
        status = Status.UNKNOWN if failure else Status.CHECKED
        blocks = any(cause and self._closed(cause) for cause in (self._failure, shortfall))
        action = Action.BLOCK if blocks else self._action
        return Verdict(status, action, coverage, tuple(self._detections), self._scores(), failure)

    def accept(self, block: TokenBlock) -> Accepted:
        """Look at a block, once: what is wrong with it, and which of its rows count."""
        cause = self._fault(block)
        seen = max(0, self._next - block.start)
        self._next = max(self._next, block.start + len(block.token_ids))
        if cause:
            return Accepted(block, cause)
        if self._session is not None:
            self._session.show(block.start, block.token_ids)
        if block.phase is Phase.RESPONSE and self._rewinding.lag:
            self._rewinding.note(block.start, self._alone(block.phase))
        skip = max(seen, 1 if block.start == 0 else 0)
        rows = range(skip, len(block.token_ids))
        kept = [row for row in rows if block.token_ids[row] not in self._special]
        if not kept or not self._program.rules:
            return Accepted(block)
        return Accepted(block, "", np.asarray(kept, np.intp))

    def score(self, accepted: Accepted) -> Outcome:
        """Score a block alone."""
        if accepted.kept is None:
            return Outcome()
        found = active(accepted.readings)
        scores = self._program.weights.scores(found, len(accepted.kept))[:, None]
        tokens = Tokens(accepted.positions, accepted.token_ids, found, 0)
        member = self.member(accepted.block.phase, tokens)
        lane = member.phase.lane
        (outcome,) = advance(self._program, member.phase.table, slice(lane, lane + 1), [member], scores)
        return outcome

    def member(self, phase: Phase, tokens: Tokens) -> Member:
        """This request in a step."""
        return Member(self.state(phase), tokens, self._token_text, self._session)

    def went_ahead(self, accepted: Accepted, outcome: Outcome) -> None:
        """The block was scored together with those of others; `observe` will report it."""
        self._ahead = accepted, outcome

    def _closed(self, cause: str) -> bool:
        """Whether a cause blocks; a lost session concerns those policies alone that add up over sessions."""
        if cause == LOST and self._session is not None:
            return any(policy.closed and policy.enforced for policy in self._session.makers)
        return self._applying.closed

    def _finish(self, accepted: Accepted, outcome: Outcome) -> Decision:
        if accepted.cause:
            return self.failed(accepted.cause)
        self._action = max(self._action, strongest([self._program.rules[i] for i in outcome.new]))
        detections, phase = outcome.detections, accepted.block.phase
        if outcome.pooled is not None:
            self._holding.take(outcome, self.state(phase).lanes["watching"][0])
        self._detections.extend(detections)
        if outcome.new:
            detections = self._take_back(outcome, phase)
        return self._decision(detections)

    def _take_back(self, outcome: Outcome, phase: Phase) -> tuple[Detection, ...]:
        """Forget tokens where a rule that fired wants them back; the step's detections as they may be shown."""
        end, position = self._next, self._rewinding.due(outcome.new, phase, self._next)
        if position is None:
            return outcome.detections
        self._restart = position
        if position < end:
            self._rewinding.restore(position, end, self._alone(phase))
            self._next = position
            if self._session is not None:
                self._session.forget(position)
            self._detections = [found.shown_below(position) for found in self._detections]
        return tuple(self._detections[len(self._detections) - len(outcome.detections) :])

    def _alone(self, phase: Phase) -> PhaseState:
        """The state of a phase, in a table of its own."""
        state = self.state(phase)
        if self.batch is not None:
            self.batch.leave(state)
        return state

    def _settle(self) -> None:
        if self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            self._finish(*ahead)

    def _fault(self, block: TokenBlock) -> str:
        if block.readings.shape != (len(block.token_ids), len(self._program.watch)):
            return SHAPE
        if block.start > self._next:
            return GAP
        # The sum of finite numbers may overflow, so only then are all of them looked at.
        with np.errstate(over="ignore", invalid="ignore"):
            total = block.readings.sum()
        return "" if np.isfinite(total) or np.isfinite(block.readings).all() else NON_FINITE

    def _shortfall(self, coverage: Coverage) -> str:
        if not coverage.complete:
            return INCOMPLETE
        if coverage.tokens_run == 0:
            return NOT_RUN
        shown = self._next + self._rewinding.forgotten
        return MISCOUNTED if coverage.tokens_scored > shown else ""

    def state(self, phase: Phase) -> PhaseState:
        """What the rules carry in a phase."""
        state = self._states.get(phase)
        if state is None:
            masks = Masks(
                self._program.watches(phase) & self._applying.rules,
                self._program.reads(phase) & self._applying.checks,
            )
            before = next(reversed(self._states.values()), None)
            if before is not None and self.batch is not None:
                self.batch.leave(before)
            state = self._states[phase] = PhaseState(self._program, phase, masks, before)
        return state

    def _decision(self, detections: tuple[Detection, ...] = ()) -> Decision:
        holding, lag = self._holding, self._rewinding.lag
        return Decision(detections, self._action, holding.clamps, holding.names, lag, self._restart)

    def _scores(self) -> tuple[RuleScore, ...]:
        states = self._states.values()
        for state in states:
            if self.batch is not None:
                self.batch.leave(state)
        return tuple(score for state in states for score in rule_scores(self._program, state))
