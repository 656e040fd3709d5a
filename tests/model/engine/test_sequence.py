"""Clamps that begin in the midst of a response hold from there on, also when the sequence is computed again."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from monitor.model.engine.paged import Limits
from monitor.model.engine.requests import Finished
from monitor.model.engine.sequence import ran_others
from monitor.model.tap.span import Span
from monitor.records import Clamp, Decision, TokenBlock, Where
from tests.model.running import Call, Running, running
from tests.model.tiny import Recorder, dictionary, loaded_model, prompt

FIRST = (Clamp(40, -6.0, Where.EVERYWHERE),)
SECOND = (*FIRST, Clamp(41, -6.0, Where.EVERYWHERE))
ROOM = Limits(running=8, batch_tokens=64, cache_tokens=1024, page=8)
TIGHT = Limits(running=8, batch_tokens=64, cache_tokens=160, page=8)
"""Cannot hold eight sequences: the library evicts and prefills again."""


class Later(Recorder):
    """Clamps from some response tokens on: more after each step of `at`; nothing again after the last."""

    def __init__(self, ids: tuple[int, ...], at: dict[int, tuple[Clamp, ...]]) -> None:
        super().__init__()
        self._at = {len(ids) + after: clamps for after, clamps in at.items()}

    def observe(self, block: TokenBlock) -> Decision:
        super().observe(block)
        end = block.start + len(block.token_ids)
        reached = [clamps for after, clamps in self._at.items() if end >= after]
        return Decision(clamps=reached[-1] if reached else ())


PLANS = {
    "once": {5: FIRST},
    "more later": {3: FIRST, 9: SECOND},
    "ending": {3: FIRST, 9: SECOND, 20: ()},
    "ending soon": {0: (Clamp(40, -30.0, Where.EVERYWHERE),), 3: ()},
    "from the prompt's end": {0: FIRST},
}


def calls(run: Running, at: dict[int, tuple[Clamp, ...]]) -> list[Call]:
    prompts = [prompt(n, longest=30) for n in range(8)]
    # Drawn, so that small changes of the logits show.
    found = [
        run.call(ids, new=40, observer=Later(ids, at), temperature=1.5, seed=n)
        for n, ids in enumerate(prompts)
    ]
    for call in found:
        call.finished()
    return found


def edited(call: Call) -> list[int]:
    """Positions at which a clamp wrote something."""
    return [t.position for t in call.tokens if any(r.after is not None for r in t.readings)]


@pytest.mark.slow
@pytest.mark.parametrize("at", PLANS.values(), ids=PLANS)
def test_an_eviction_changes_nothing(at: dict[int, tuple[Clamp, ...]]) -> None:
    with running(loaded_model(), dictionary(), clampable=[40, 41], limits=ROOM) as run:
        whole = calls(run, at)
    with running(loaded_model(), dictionary(), clampable=[40, 41], limits=TIGHT) as run:
        evicted, passes = calls(run, at), run.engine.passes()
    assert passes > 2 * 40, "nothing was evicted"
    for one, other in zip(whole, evicted, strict=True):
        assert [t.token_id for t in one.tokens] == [t.token_id for t in other.tokens]
        assert edited(one) == edited(other)
        assert counts(one.finished()) == counts(other.finished())


def counts(found: Finished) -> tuple[object, ...]:
    return found.reason, found.tokens_clamped, found.coverage


def test_a_pass_that_left_tokens_out_ran_others() -> None:
    sequence = SimpleNamespace(scored=2, ids=[5, 6, 7, 8])
    assert not ran_others(sequence, Span("a", 0, 2, 2, True), [7, 8])
    assert not ran_others(sequence, Span("a", 0, 4, 0, True), [5, 6, 7, 8])
    assert ran_others(sequence, Span("a", 0, 1, 3, True), [8]), "position 2 was never run"
    assert ran_others(sequence, Span("a", 0, 2, 2, True), [7, 9])
