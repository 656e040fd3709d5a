"""Readings and clamps of the batched engine against one plain float64 sequence at a time."""

import random
import threading

import numpy as np
import pytest
import torch

from monitor.model.engine.paged import Limits
from monitor.model.engine.requests import Released
from monitor.records import Clamp, FinishReason, Where
from tests.model.running import LAYER, WATCHED, Call, Running, running
from tests.model.tiny import (
    CONFIGS,
    KINDS,
    Recorder,
    dictionary,
    loaded_model,
    maxima,
    plain_generate,
    prompt,
)
from tests.waiting import wait_for

CLAMPS = (Clamp(3, -1.0), Clamp(40, -2.0, Where.EVERYWHERE), Clamp(41, 0.5))


def check(call: Call, kind: str, sae_kind: str, new: int, clamps: tuple[Clamp, ...] = ()) -> None:
    exact = loaded_model(kind, dtype=torch.float64)
    sae = dictionary(sae_kind)
    tokens, activations = plain_generate(
        exact.model, exact.layers[LAYER], sae, maxima(), call.ids, new, clamps
    )
    assert [token.token_id for token in call.tokens] == tokens
    wanted = (activations[:, list(WATCHED)] / maxima()[list(WATCHED)]).numpy()
    np.testing.assert_allclose(call.readings, wanted, rtol=1e-4, atol=1e-5)
    assert call.finished().coverage.complete


def some_calls(run: Running, count: int, new: int) -> list[tuple[Call, tuple[Clamp, ...]]]:
    """Arrivals in bursts, with a third of the calls cancelled half way, a third clamped."""
    calls = []
    chance = random.Random(7)
    for number in range(count):
        clamps = CLAMPS if number % 3 == 0 else ()
        calls.append((run.call(prompt(number), new=new, clamps=clamps), clamps))
        if number % 4 == 1:
            victim = run.call(prompt(1000 + number), new=100)
            threading.Event().wait(chance.random() * 0.02)
            run.engine.cancel(f"r{run.count}")
            assert victim.finished().reason in (FinishReason.CANCELLED, FinishReason.STOP)
    for call, _ in calls:
        call.finished()
    return calls


@pytest.mark.slow
def test_mixed_batch_with_arrivals_and_cancellations_equals_plain_sequences() -> None:
    with running(loaded_model(), dictionary()) as run:
        for call, clamps in some_calls(run, 36, 12):
            check(call, "llama", "jumprelu", 12, clamps)


@pytest.mark.slow
@pytest.mark.parametrize("sae_kind", KINDS)
def test_every_kind_of_dictionary(sae_kind: str) -> None:
    with running(loaded_model(), dictionary(sae_kind)) as run:
        calls = [(run.call(prompt(n), new=6, clamps=c), c) for n in range(6) for c in ((), CLAMPS)]
        for call, clamps in calls:
            call.finished()
            check(call, "llama", sae_kind, 6, clamps)


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(CONFIGS))
def test_every_architecture(kind: str) -> None:
    with running(loaded_model(kind), dictionary()) as run:
        calls = [(run.call(prompt(n), new=6, clamps=c), c) for n in range(4) for c in ((), CLAMPS)]
        for call, clamps in calls:
            call.finished()
            check(call, kind, "jumprelu", 6, clamps)


@pytest.mark.slow
def test_prompts_longer_than_a_pass_are_split_and_still_exact() -> None:
    with running(loaded_model(), dictionary(), limits=Limits(running=8, batch_tokens=16)) as run:
        calls = [run.call(prompt(n, longest=100), new=5, clamps=CLAMPS) for n in range(8)]
        for call in calls:
            call.finished()
            check(call, "llama", "jumprelu", 5, CLAMPS)


@pytest.mark.slow
def test_evicted_requests_are_computed_again_and_scored_once() -> None:
    # A cache of 160 tokens cannot hold eight sequences: the library evicts and prefills again.
    limits = Limits(running=8, batch_tokens=64, cache_tokens=160, page=8)
    with running(loaded_model(), dictionary(), limits=limits) as run:
        calls = [run.call(prompt(n, longest=30), new=40, clamps=CLAMPS) for n in range(8)]
        for call in calls:
            call.finished()
            check(call, "llama", "jumprelu", 40, CLAMPS)
            # One of the clamps edits every token but the first; computing some of them again adds nothing.
            assert call.finished().tokens_clamped == call.finished().coverage.tokens_run - 1


class TestEnds:
    @pytest.mark.slow
    def test_no_token_is_released_before_it_is_scored(self) -> None:
        order: list[tuple[str, int]] = []

        class Watcher(Recorder):
            def observe(self, block):
                order.append(("scored", block.start + len(block.token_ids)))
                return super().observe(block)

        call = Call(prompt(1), Watcher())
        with running(loaded_model(), dictionary()) as run:
            emit = call.emit

            def note(events):
                for _, event in events:
                    if isinstance(event, Released) and event.tokens is not None:
                        order.append(("released", event.tokens.start + len(event.tokens.token_ids)))
                emit(events)

            call.emit = note
            from monitor.model.engine.requests import GenerationRequest
            from monitor.records import Sampling

            request = GenerationRequest(
                "a", call.ids, Sampling(max_new_tokens=8), call.observer, call.observer, include_tokens=True
            )
            run.engine.submit(request, call.emit)
            finished = call.finished()
        scored = 0
        for what, position in order:
            if what == "scored":
                scored = position
            else:
                assert position <= scored
        assert finished.released == scored == finished.coverage.tokens_run

    def test_length(self) -> None:
        with running(loaded_model(), dictionary()) as run:
            finished = run.call(prompt(2), new=1).finished()
        assert (finished.reason, finished.tokens_generated) == (FinishReason.LENGTH, 1)

    @pytest.mark.slow
    def test_end_of_the_context(self) -> None:
        ids = (0, *([7] * 120))
        with running(loaded_model(), dictionary(), limits=Limits(running=2, batch_tokens=128)) as run:
            call = run.call(ids, new=50)
            finished = call.finished()
        assert finished.coverage.tokens_run <= 128
        assert finished.reason in (FinishReason.LENGTH, FinishReason.STOP)

    @pytest.mark.slow
    def test_stop_string_ends_before_itself(self) -> None:
        with running(loaded_model(), dictionary()) as run:
            whole = run.call(prompt(5), new=20)
            whole.finished()
            stop = whole.text[8:11]
            call = run.call(prompt(5), new=20, stop=(stop,))
            finished = call.finished()
        assert finished.reason is FinishReason.STOP
        assert call.text == whole.text[: whole.text.index(stop)]

    @pytest.mark.slow
    def test_seeded_sampling_does_not_depend_on_neighbours(self) -> None:
        wanted = {"temperature": 1.3, "top_k": 40, "top_p": 0.9, "seed": 11}
        with running(loaded_model(), dictionary()) as run:
            alone = run.call(prompt(3), new=16, **wanted)
            alone.finished()
            calls = [run.call(prompt(n), new=16, temperature=1.0) for n in range(8)]
            among = run.call(prompt(3), new=16, **wanted)
            other = run.call(prompt(3), new=16, **(wanted | {"seed": 12}))
            for call in (*calls, among, other):
                call.finished()
        assert among.text == alone.text
        assert other.text != alone.text

    @pytest.mark.slow
    def test_greedy_neighbours_of_clamped_requests_are_bit_identical(self) -> None:
        with running(loaded_model(), dictionary()) as run:
            before = [run.call(prompt(n), new=10) for n in range(4)]
            for call in before:
                call.finished()
            clamped = [run.call(prompt(50 + n), new=10, clamps=CLAMPS) for n in range(4)]
            after = [run.call(prompt(n), new=10) for n in range(4)]
            for call in (*clamped, *after):
                call.finished()
        for one, two in zip(before, after, strict=True):
            assert [t.token_id for t in one.tokens] == [t.token_id for t in two.tokens]


@pytest.mark.slow
def test_an_id_may_come_again_as_soon_as_its_request_has_ended() -> None:
    """The end of the first is not taken for the end of the second, which is submitted while the engine tells of it."""
    with running(loaded_model(), dictionary()) as run:
        again: list[Call] = []
        deliver = Call.emit

        def emit(call: Call, events: object) -> None:
            deliver(call, events)
            if call.done.is_set() and not again:
                run.count -= 1
                again.append(run.call(prompt(3), new=6))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Call, "emit", emit)
            first = run.call(prompt(3), new=6)
            first.finished()
            wait_for(lambda: again)
        assert again[0].finished().reason is first.finished().reason
        assert [t.token_id for t in again[0].tokens] == [t.token_id for t in first.tokens]
