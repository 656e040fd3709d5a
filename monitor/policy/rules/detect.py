"""Tokens of requests go through the rules: scores in, detections out.

Knows programs, lanes and evidence. Does not know blocks, failures or actions, nor whether requests go alone or
together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.policy.rules.evidence import Tokens, add, until
from monitor.policy.rules.pooling import Scores, State
from monitor.policy.rules.program import Program
from monitor.policy.rules.sessions import SessionPools
from monitor.policy.rules.state import PhaseState, part
from monitor.policy.rules.step import InSession, Step, nearest, settle, step
from monitor.records import ConditionScore, Detection, Evidence, RuleScore, TokenText


@dataclass(frozen=True)
class Member:
    """One request in a step."""

    phase: PhaseState
    tokens: Tokens
    token_text: TokenText
    session: SessionPools | None = None


@dataclass(frozen=True)
class Outcome:
    """What a step made of one request."""

    detections: tuple[Detection, ...] = ()
    new: tuple[int, ...] = ()
    """Rules that fired, as numbers in the program."""
    pooled: Scores | None = None
    """`[tokens, checks]`; None where no token counted. For who must know when a score falls again."""
    thresholds: NDArray[np.float64] | None = None
    """What `pooled` was compared with: `[checks]`, or as `pooled`."""
    stands: NDArray[np.bool_] | None = None
    """`[tokens, combined]`: combined rules that have held for as many tokens as they ask; None where there are none."""


def advance(
    program: Program, table: State, where: slice, members: Sequence[Member], scores: Scores
) -> list[Outcome]:
    """Push scores `[tokens, lanes, checks]`: one token of every member, or all tokens of the only one."""
    state = part(table, where)
    sessions = [
        own for lane, member in enumerate(members) if (own := _in_session(program, lane, member, scores))
    ]
    taken = step(program, state, scores, sessions)
    hits: dict[int, list[int]] = {}
    for lane, rule in zip(*np.nonzero(taken.new), strict=True):
        hits.setdefault(int(lane), []).append(int(rule))
    found = {
        lane: tuple(_detection(member, taken, state, lane, rule, scores) for rule in hits[lane])
        for lane, member in enumerate(members)
        if lane in hits
    }
    settle(program, state, taken)
    add(program, state, scores, [(member.phase, member.tokens) for member in members])
    return [
        Outcome(
            found.get(lane, ()),
            tuple(hits.get(lane, ())),
            taken.pooled[:, lane],
            taken.thresholds if taken.thresholds.ndim == 1 else taken.thresholds[:, lane],
            None if taken.stands is None else taken.stands[:, lane],
        )
        for lane in range(len(members))
    ]


def rule_scores(program: Program, phase: PhaseState) -> tuple[RuleScore, ...]:
    """How far every rule has come in a phase; none for rules that no token counted for."""
    state = phase.lanes
    best = state["best"][0]
    limits = state["best_threshold"][0] if program.thresholds.vary else program.thresholds.fixed
    found: dict[int, RuleScore] = {}
    for check, i in enumerate(program.simple):
        if state["watching"][0, i] and np.isfinite(best[check]):
            names = program.owners[i].name, program.rules[i].name
            found[int(i)] = RuleScore(*names, phase.phase, float(best[check]), float(limits[check]))
    if len(program.combined):
        leaves = [(float(best[i]), float(limits[i])) for i in program.leaves]
        margins = program.gates.margins([score - limit for score, limit in leaves])
        held = state["until"][0] >= state["clock"][0]
        for n, i in enumerate(program.combined):
            if state["watching"][0, i] and np.isfinite(margins[n]):
                parts = _condition_scores(program, n, leaves, held)
                names = program.owners[i].name, program.rules[i].name
                found[int(i)] = RuleScore(*names, phase.phase, margins[n], 0.0, parts)
    return tuple(found[i] for i in sorted(found))


def _in_session(program: Program, lane: int, member: Member, scores: Scores) -> InSession | None:
    if member.session is None:
        return None
    pooled, counts = member.session.push(
        scores[:, lane, program.in_session], member.tokens.positions, member.phase.phase
    )
    return InSession(lane, pooled, counts)


def _detection(member: Member, taken: Step, state: State, lane: int, rule: int, scores: Scores) -> Detection:
    """The detection of a rule that fires at a token of the step."""
    program, tokens = member.phase.program, member.tokens
    spec, policy = program.rules[rule], program.owners[rule]
    at = int(taken.first[lane, rule])
    if spec.when is None:
        check = int(np.searchsorted(program.simple, rule))
        score, threshold = float(taken.pooled[at, lane, check]), taken.threshold(at, lane, check)
        evidence = until(member.phase, tokens, scores[:, lane, check], check, at + 1, member.token_text, "")
        conditions: tuple[ConditionScore, ...] = ()
    else:
        n = int(np.searchsorted(program.combined, rule))
        leaves = [nearest(program, state, taken, lane, int(i), at + 1) for i in program.leaves]
        assert taken.holds is not None
        conditions = _condition_scores(program, n, leaves, taken.holds[at, lane])
        score, threshold = program.gates.margins([s - limit for s, limit in leaves])[n], 0.0
        evidence = _combined_evidence(member, taken, lane, n, at, scores)
    return Detection(
        policy=policy.name,
        rule=spec.name,
        category=policy.category,
        severity=spec.severity,
        action=spec.action,
        mode=spec.mode,
        phase=member.phase.phase,
        position=int(tokens.positions[at]),
        score=score,
        threshold=threshold,
        evidence=evidence,
        conditions=conditions,
    )


def _condition_scores(
    program: Program, n: int, leaves: Sequence[tuple[float, float]], held: NDArray[np.bool_]
) -> tuple[ConditionScore, ...]:
    """The leaves of the n-th combined rule; `leaves` holds score and threshold of all."""
    return tuple(
        ConditionScore(program.checks[program.leaves[i]].name, *leaves[i], bool(held[i]))
        for i in program.parts[n]
    )


def _combined_evidence(
    member: Member, taken: Step, lane: int, n: int, at: int, scores: Scores
) -> tuple[Evidence, ...]:
    """The best tokens of every condition that holds, conditions taking turns."""
    program = member.phase.program
    assert taken.holds is not None
    lists = []
    for i in program.parts[n]:
        if taken.holds[at, lane, i]:
            check = int(program.leaves[i])
            own = scores[:, lane, check] if check_reads(member.phase, check) else np.zeros(len(scores))
            name = program.checks[check].name
            lists.append(until(member.phase, member.tokens, own, check, at + 1, member.token_text, name))
    turns = [entry for rank in range(5) for own in lists for entry in own[rank : rank + 1]]
    return tuple(turns[:5])


def check_reads(phase: PhaseState, check: int) -> bool:
    """Whether a check looks at this phase."""
    return bool(phase.lanes["reading"][0, check])
