"""NaN and infinity in one request's rows: it is told, and whoever shares its passes gets what it gets alone."""

from __future__ import annotations

import threading

import pytest
import torch

from monitor.errors import MonitoringFailed, NotComputed
from monitor.model.engine.attention import each_apart
from monitor.model.engine.paged import Limits
from monitor.model.load.hook_points import hidden_of, replace_hidden
from monitor.records import Action, Clamp, Failure, FinishReason, Where
from tests.model.families import FAMILIES, family_model
from tests.model.running import LAYER, Call, Running, running
from tests.model.tiny import LAYERS, Recorder, dictionary, loaded_model, prompt

SPOILT = 200
"""A token whose numbers break."""
NEW = 12
SPLIT = Limits(running=16, batch_tokens=96)
NEIGHBOURS = (1, 2, 5)
HOLD = (Clamp(3, -1.0), Clamp(41, 2.0, Where.EVERYWHERE))
PLACES = ("embedding", "before", "behind", "last", "logits")
"""Where a number breaks: before all layers, before the tapped one, behind it, behind all, and in the logits."""


def spoil(run: Running, value: float, place: str = "embedding") -> None:
    """From here on the spoilt token's row is `value` at a place."""
    model, layers = run.engine._loaded.model, run.engine._loaded.layers
    here = threading.local()

    def note(_module: object, _args: tuple, options: dict) -> None:
        here.ids, here.drawn = options["input_ids"], options.get("logits_to_keep")

    def broken(hidden: torch.Tensor) -> torch.Tensor:
        return hidden.masked_fill((here.ids == SPOILT).unsqueeze(-1), value)

    def enters(_module: object, args: tuple) -> tuple:
        return (broken(args[0]), *args[1:])

    def leaves(_module: object, _args: tuple, out: object) -> object:
        return replace_hidden(out, broken(hidden_of(out)))

    def scores(_module: object, _args: tuple, logits: torch.Tensor) -> torch.Tensor:
        return logits.masked_fill((here.ids[:, here.drawn] == SPOILT).unsqueeze(-1), value)

    model.register_forward_pre_hook(note, with_kwargs=True)
    if place == "embedding":
        model.get_input_embeddings().register_forward_hook(leaves)
    elif place == "logits":
        model.get_output_embeddings().register_forward_hook(scores)
    else:
        layer = {"before": LAYER, "behind": LAYER + 1, "last": LAYERS - 1}[place]
        module = layers[layer]
        if place == "last":
            module.register_forward_hook(leaves)
        else:
            module.register_forward_pre_hook(enters)


def steer(run: Running, name: str, at: int) -> None:
    """Have a request draw the spoilt token as its token number `at`, however often a pass runs."""
    engine, draw = run.engine, run.engine.draw

    def steered(logits: torch.Tensor) -> torch.Tensor:
        tokens = draw(logits).clone()
        drawing = [
            sequence
            for sequence, span in zip(engine._laid.sequences, engine._batcher._spans, strict=True)
            if span.draws
        ]
        for row, sequence in enumerate(drawing):
            if sequence and sequence.request_id == name and len(sequence.ids) - sequence.prompt == at:
                tokens[row] = SPOILT
        return tokens

    engine.draw = steered


def count_again(run: Running) -> list[bool]:
    """Whether each pass of several requests ran again."""
    told, again = [], run.engine.again

    def noted() -> bool:
        told.append(again())
        return told[-1]

    run.engine.again = noted
    return told


def beside(run: Running, *broken: dict, **options: object) -> tuple[list[Call], list[Call]]:
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
        mine = [run.call(sound(n), new=NEW, seed=n, **options) for n in NEIGHBOURS]
    for call in (first, *theirs, *mine):
        call.finished()
    run.engine.before = before
    return theirs, mine


def sound(number: int) -> tuple[int, ...]:
    return tuple(token for token in prompt(number) if token != SPOILT)


def alone(run: Running, **options: object) -> list[Call]:
    calls = []
    for number in NEIGHBOURS:
        calls.append(run.call(sound(number), new=NEW, seed=number, **options))
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
@pytest.mark.parametrize(
    ("place", "value"), [*((place, float("nan")) for place in PLACES), ("before", float("inf"))]
)
@pytest.mark.parametrize("at", [0, 5], ids=["prefill", "decode"])
def test_neighbours_have_the_tokens_and_readings_that_they_have_alone(
    place: str, value: float, at: int
) -> None:
    """Neighbours that draw at random and are clamped, beside a request that breaks in its prompt or its response."""
    options = {"temperature": 0.8, "clamps": HOLD}
    with running(loaded_model(), dictionary(), clampable=[41], limits=SPLIT) as run:
        run.engine._end_ids = frozenset()
        expected = alone(run, **options)
        never_drawn(expected)
        spoil(run, value, place)
        told = count_again(run)
        if at:
            steer(run, f"r{run.count + 2}", at)
        theirs, mine = beside(run, {"ids": (0, 5, 6, 9 if at else SPOILT), "new": NEW}, **options)
        same(mine, expected)
        last = theirs[0].finished()
        assert [call.finished().tokens_clamped for call in mine] == [
            call.finished().tokens_clamped for call in expected
        ]
        assert isinstance(last.error, (MonitoringFailed, NotComputed))
        assert len(theirs[0].tokens) <= 5 + at
        assert 1 <= sum(told) <= 2
        same(alone(run, **options), expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gemma2", "mistral", "gpt_oss", "gemma3"])
def test_windows_that_slide_are_put_back(kind: str) -> None:
    """The third part of a long prompt, which overwrites its window, beside a request that breaks in its response."""
    make = family_model if kind in FAMILIES else loaded_model
    with running(make(kind), dictionary(), limits=Limits(running=16, batch_tokens=24)) as run:
        run.engine._end_ids = frozenset()
        long = (0, *range(20, 115))
        expected = run.call(long, new=NEW)
        expected.finished()
        never_drawn([expected])
        spoil(run, float("nan"))
        told, laid = count_again(run), []
        before = run.engine.before
        steer(run, f"r{run.count + 1}", 2)

        def note(spans, rows):
            before(spans, rows)
            laid.append([(span.position, span.count) for span in spans])

        run.engine.before = note
        with run.engine._loaded.passes:
            broken, mine = run.call((0, 5, 6, 9), new=NEW), run.call(long, new=NEW)
        same([mine], [expected])
        broken.finished()
        assert broken.observer.failures == [Failure.NON_FINITE]
        assert sum(told) == 1
        again = [spans for spans in laid if len(spans) == 2][told.index(True)]
        assert again[1][0] > 16
        assert again[1][1] > 1


@pytest.mark.slow
def test_under_open_it_ends_at_once_and_keeps_what_was_released() -> None:
    with running(loaded_model(), dictionary(), limits=SPLIT) as run:
        run.engine._end_ids = frozenset()
        expected = alone(run)
        spoil(run, float("nan"))
        told, shown = count_again(run), Recorder(on_error=Action.ALLOW)
        steer(run, f"r{run.count + 2}", 5)
        theirs, mine = beside(run, {"ids": (0, 5, 6, 9), "new": NEW, "observer": shown})
        same(mine, expected)
        last = theirs[0].finished()
        assert shown.failures == [Failure.NON_FINITE]
        assert (last.reason, last.error) == (FinishReason.LENGTH, None)
        assert (last.coverage.tokens_run, last.coverage.tokens_scored) == (10, 9)
        assert len(theirs[0].tokens) == 10
        assert sum(told) == 1


@pytest.mark.slow
@pytest.mark.parametrize("place", ["embedding", "behind"])
def test_a_long_prompt_that_broke_makes_no_pass_run_twice_again(place: str) -> None:
    """Its later passes compute attention apart from the start."""
    with running(loaded_model(), dictionary(), limits=Limits(running=16, batch_tokens=24)) as run:
        run.engine._end_ids = frozenset()
        neighbour = run.call(sound(1), new=40)
        neighbour.finished()
        spoil(run, float("nan"), place)
        told, passes = count_again(run), run.engine.passes()
        shown = Recorder(on_error=Action.ALLOW)
        begun, after = threading.Event(), run.engine.after

        def note(*args: object) -> None:
            after(*args)
            begun.set()

        run.engine.after = note
        beside_it = run.call(sound(1), new=40)
        assert begun.wait(30)
        long = run.call((0, SPOILT, *[7] * 100), new=4, observer=shown)
        long.finished()
        beside_it.finished()
        assert run.engine.passes() - passes >= 5
        assert sum(told) == 1
        assert [t.token_id for t in beside_it.tokens] == [t.token_id for t in neighbour.tokens]
        assert beside_it.readings == pytest.approx(neighbour.readings, rel=1e-4, abs=1e-5)
        assert not long.finished().tokens_generated


@pytest.mark.slow
def test_a_fault_that_passes_costs_nobody_anything() -> None:
    """The second run computes what the first one should have; that it was needed is counted."""
    with running(loaded_model(), dictionary(), limits=SPLIT) as run:
        expected = alone(run)
        struck = []

        def strike(_module: object, args: tuple) -> tuple | None:
            if struck or len(run.engine._laid.sequences) == 1:
                return None
            struck.append(True)
            return (torch.full_like(args[0], float("nan")), *args[1:])

        run.engine._loaded.layers[LAYER].register_forward_pre_hook(strike)
        before = run.engine.unscored_passes()
        _, mine = beside(run)
        same(mine, expected)
        assert struck
        assert run.engine.unscored_passes() == before + 1


@pytest.mark.slow
def test_passes_without_a_fault_run_once() -> None:
    with running(loaded_model(), dictionary(), limits=SPLIT) as run:
        told = count_again(run)
        beside(run)
        assert told
        assert not any(told)
        assert run.engine.unscored_passes() == 0


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
