"""NaN and infinity in one request's rows: it is told, and whoever shares its passes gets what it gets alone."""

from __future__ import annotations

import threading

import pytest
import torch

from monitor.errors import MonitoringFailed, NotComputed
from monitor.model.engine.attention import each_apart
from monitor.model.engine.paged import Limits
from monitor.records import Action, Clamp, Failure, FinishReason, Where
from tests.model.running import Call, Running, running
from tests.model.tiny import Recorder, dictionary, loaded_model, prompt

SPOILT = 201
"""A token whose embedding is no number."""
NEW = 12
SPLIT = Limits(running=16, batch_tokens=96)
NEIGHBOURS = (1, 2, 5)


def spoil(run: Running, value: float) -> None:
    def embed(_module: object, args: tuple, embedded: torch.Tensor) -> torch.Tensor:
        return embedded.masked_fill((args[0] == SPOILT).unsqueeze(-1), value)

    run.engine._loaded.model.get_input_embeddings().register_forward_hook(embed)


def beside(run: Running, *broken: dict) -> tuple[list[Call], list[Call]]:
    """Requests whose rows break, and neighbours, which all begin in one pass."""
    laid, before = threading.Event(), run.engine.before

    def note(spans, rows):
        before(spans, rows)
        laid.set()

    run.engine.before = note
    with run.engine._loaded.passes:
        first = run.call(prompt(90), new=1)
        assert laid.wait(30)
        theirs = [run.call(**call) for call in broken]
        mine = [run.call(sound(n), new=NEW) for n in NEIGHBOURS]
    for call in (first, *theirs, *mine):
        call.finished()
    run.engine.before = before
    return theirs, mine


def sound(number: int) -> tuple[int, ...]:
    return tuple(token for token in prompt(number) if token != SPOILT)


def alone(run: Running) -> list[Call]:
    calls = []
    for number in NEIGHBOURS:
        calls.append(run.call(sound(number), new=NEW))
        calls[-1].finished()
    return calls


def never_drawn(calls: list[Call]) -> None:
    assert SPOILT not in {token.token_id for call in calls for token in call.tokens}, "choose another token"


def same(mine: list[Call], expected: list[Call]) -> None:
    for call, other in zip(mine, expected, strict=True):
        assert call.observer.failures == []
        assert call.finished().coverage.complete
        assert call.finished().reason is other.finished().reason
        assert [t.token_id for t in call.tokens] == [t.token_id for t in other.tokens]
        assert call.readings == pytest.approx(other.readings, rel=1e-4, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llama", "gemma2", "mixtral", "gpt_neox"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_prompt_that_breaks_takes_nobody_with_it(kind: str, value: float) -> None:
    with running(loaded_model(kind), dictionary(), limits=SPLIT) as run:
        expected = alone(run)
        never_drawn(expected)
        spoil(run, value)
        shown = Recorder(on_error=Action.ALLOW)
        theirs, mine = beside(
            run,
            {"ids": (0, 5, SPOILT, 9), "new": NEW},
            {"ids": (0, 8, SPOILT), "new": NEW, "observer": shown},
        )
        same(mine, expected)
        assert isinstance(theirs[0].finished().error, MonitoringFailed)
        assert theirs[0].observer.failures == [Failure.NON_FINITE]
        assert set(shown.failures) == {Failure.NON_FINITE}
        same(alone(run), expected)  # nothing of it stays in the cache


@pytest.mark.slow
def test_a_token_that_breaks_in_the_midst_of_a_response() -> None:
    with running(loaded_model(), dictionary(), limits=SPLIT) as run:
        expected = alone(run)
        never_drawn(expected)
        drawn, draw = [0], run.engine.draw

        def steer(logits):
            # The fifth token of the first request is the spoilt one.
            tokens = draw(logits).clone()
            if len(tokens) == len(NEIGHBOURS) + 1:
                drawn[0] += 1
                tokens[0] = SPOILT if drawn[0] == 5 else tokens[0]
            return tokens

        spoil(run, float("nan"))
        run.engine.draw = steer
        theirs, mine = beside(run, {"ids": (0, 5, 6, 9), "new": NEW})
        same(mine, expected)
    assert drawn[0] >= 5
    assert theirs[0].observer.failures == [Failure.NON_FINITE]
    assert theirs[0].finished().reason is FinishReason.POLICY


@pytest.mark.slow
def test_a_clamp_that_overflows_behind_the_layer() -> None:
    # LayerNorm turns what is near the largest number into NaN; RMSNorm would turn it into zero.
    with running(loaded_model("gpt_neox"), dictionary(), limits=SPLIT) as run:
        expected = alone(run)
        run.bank.decoder[run.bank.slot(5)] *= 1e37
        huge = [Clamp(5, 100.0, Where.EVERYWHERE)]
        theirs, mine = beside(run, {"ids": prompt(4), "new": NEW, "clamps": huge})
        same(mine, expected)
    last = theirs[0].finished()
    assert isinstance(last.error, (NotComputed, MonitoringFailed))
    assert last.tokens_generated == 0


def test_kernels_that_keep_requests_apart_are_left_alone() -> None:
    assert each_apart("flash_attention_2") == "flash_attention_2"
    assert each_apart("sdpa") == each_apart("sdpa") != "sdpa"
