"""Readings and clamps of the batched engine against one plain float64 sequence at a time."""

import random
import threading

import numpy as np
import pytest
import torch

from monitor.errors import ModelError, MonitoringFailed, Overloaded, Unavailable
from monitor.model.batching import Limits
from monitor.model.requests import Released
from monitor.records import Action, Clamp, Decision, FinishReason, Where
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


def test_mixed_batch_with_arrivals_and_cancellations_equals_plain_sequences() -> None:
    with running(loaded_model(), dictionary()) as run:
        for call, clamps in some_calls(run, 36, 12):
            check(call, "llama", "jumprelu", 12, clamps)


@pytest.mark.parametrize("sae_kind", KINDS)
def test_every_kind_of_dictionary(sae_kind: str) -> None:
    with running(loaded_model(), dictionary(sae_kind)) as run:
        calls = [(run.call(prompt(n), new=6, clamps=c), c) for n in range(6) for c in ((), CLAMPS)]
        for call, clamps in calls:
            call.finished()
            check(call, "llama", sae_kind, 6, clamps)


@pytest.mark.parametrize("kind", list(CONFIGS))
def test_every_architecture(kind: str) -> None:
    with running(loaded_model(kind), dictionary()) as run:
        calls = [(run.call(prompt(n), new=6, clamps=c), c) for n in range(4) for c in ((), CLAMPS)]
        for call, clamps in calls:
            call.finished()
            check(call, kind, "jumprelu", 6, clamps)


def test_prompts_longer_than_a_pass_are_split_and_still_exact() -> None:
    with running(loaded_model(), dictionary(), limits=Limits(running=8, batch_tokens=16)) as run:
        calls = [run.call(prompt(n, longest=100), new=5, clamps=CLAMPS) for n in range(8)]
        for call in calls:
            call.finished()
            check(call, "llama", "jumprelu", 5, CLAMPS)


def test_evicted_requests_are_computed_again_and_scored_once() -> None:
    # A cache of 160 tokens cannot hold eight sequences: the library evicts and prefills again.
    limits = Limits(running=8, batch_tokens=64, cache_tokens=160, page=8)
    with running(loaded_model(), dictionary(), limits=limits) as run:
        calls = [run.call(prompt(n, longest=30), new=40, clamps=CLAMPS) for n in range(8)]
        for call in calls:
            call.finished()
            check(call, "llama", "jumprelu", 40, CLAMPS)


class TestEnds:
    def test_no_token_is_released_before_it_is_scored(self) -> None:
        order: list[tuple[str, int]] = []

        class Watcher(Recorder):
            def observe(self, block):
                order.append(("scored", block.start + len(block.token_ids)))
                return super().observe(block)

        call = Call(prompt(1), Watcher())
        with running(loaded_model(), dictionary()) as run:
            emit = call.emit

            def note(event):
                if isinstance(event, Released) and event.tokens:
                    order.append(("released", event.tokens[-1].position + 1))
                emit(event)

            call.emit = note
            from monitor.model.requests import GenerationRequest
            from monitor.records import Sampling

            request = GenerationRequest(
                "a", call.ids, Sampling(max_new_tokens=8), call.observer, include_tokens=True
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

    def test_end_of_the_context(self) -> None:
        ids = (0, *([7] * 120))
        with running(loaded_model(), dictionary(), limits=Limits(running=2, batch_tokens=128)) as run:
            call = run.call(ids, new=50)
            finished = call.finished()
        assert finished.coverage.tokens_run <= 128
        assert finished.reason in (FinishReason.LENGTH, FinishReason.STOP)

    def test_stop_string_ends_before_itself(self) -> None:
        with running(loaded_model(), dictionary()) as run:
            whole = run.call(prompt(5), new=20)
            whole.finished()
            stop = whole.text[8:11]
            call = run.call(prompt(5), new=20, stop=(stop,))
            finished = call.finished()
        assert finished.reason is FinishReason.STOP
        assert call.text == whole.text[: whole.text.index(stop)]

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


class TestPolicies:
    def test_block_on_the_prompt_releases_nothing(self) -> None:
        with running(loaded_model(), dictionary()) as run:
            call = run.call(prompt(4), observer=Recorder(decision=Decision(action=Action.BLOCK)))
            finished = call.finished()
        assert (finished.reason, finished.released, call.text, finished.error) == (
            FinishReason.POLICY,
            0,
            "",
            None,
        )

    def test_block_stops_within_one_step_and_withholds_the_token(self) -> None:
        class Third(Recorder):
            def observe(self, block):
                super().observe(block)
                return Decision(action=Action.BLOCK if len(self.blocks) == 4 else Action.ALLOW)

        with running(loaded_model(), dictionary()) as run:
            call = run.call(prompt(4), observer=Third())
            finished = call.finished()
        assert finished.reason is FinishReason.POLICY
        assert finished.tokens_generated == 2
        assert finished.released == len(call.ids) + 2 == finished.coverage.tokens_run - 1

    def test_suppression_from_a_detection_on(self) -> None:
        class Later(Recorder):
            def observe(self, block):
                super().observe(block)
                return Decision(clamps=CLAMPS if len(self.blocks) >= 3 else ())

        with running(loaded_model(), dictionary(), clampable=[40, 41]) as run:
            call = run.call(prompt(6), observer=Later())
            finished = call.finished()
        # Two decode steps ran before the third block was seen; everything after is clamped (40: everywhere).
        assert finished.tokens_clamped == finished.coverage.tokens_run - len(call.ids) - 2
        edited = [token for token in call.tokens if any(r.after is not None for r in token.readings)]
        assert len(edited) == finished.tokens_clamped

    def test_a_clamp_holds_at_the_layer(self) -> None:
        # An orthogonal decoder, so that re-encoding sees what the clamp wrote and nothing else.
        sae = dictionary("relu", features=32)
        basis, _ = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(4)))
        sae = type(sae)(
            **{**sae.__dict__, "encoder": basis, "decoder": basis, "encoder_bias": torch.zeros(32)}
        )
        with running(loaded_model(), sae) as run:
            call = run.call(prompt(8), clamps=[Clamp(5, -1.0), Clamp(6, 2.0)])
            call.finished()
        found = [r for t in call.tokens for r in t.readings if r.after is not None]
        five = [r.after for r in found if r.feature == 5 and r.reading > 0]
        six = [r.after for r in found if r.feature == 6 and r.reading > 0]
        assert five == [0.0] * len(five)
        assert six == pytest.approx([2.0] * len(six), rel=1e-4)
        assert five
        assert six


class TestFailures:
    def test_a_hook_that_was_removed_never_looks_clean(self) -> None:
        with running(loaded_model(), dictionary()) as run:
            run.tap.detach()
            closed = run.call(prompt(1))
            left_open = run.call(prompt(1), observer=Recorder(on_error=Action.ALLOW))
            first, second = closed.finished(), left_open.finished()
        assert first.reason is FinishReason.POLICY
        assert isinstance(first.error, MonitoringFailed)
        assert (first.failure, first.released, first.coverage.tokens_scored) == ("tap_missed", 0, 0)
        assert (second.failure, second.error, second.coverage.complete) == ("tap_missed", None, False)
        assert closed.text == ""

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_non_finite_activations(self, value: float) -> None:
        loaded = loaded_model()
        with running(loaded, dictionary()) as run:
            fine = run.call(prompt(2), new=4)
            fine.finished()
            with torch.no_grad():
                loaded.model.get_input_embeddings().weight[77].fill_(value)
            broken = run.call((0, 5, 77, 9), new=4)
            assert broken.finished().failure == "non_finite"
            assert broken.finished().reason is FinishReason.POLICY
            assert broken.text == ""
            assert isinstance(broken.finished().error, MonitoringFailed)
            after = run.call((0, 5, 6, 9), new=4)
            assert after.finished().coverage.complete

    def test_a_rule_that_crashes_ends_its_own_request_only(self) -> None:
        class Broken(Recorder):
            def observe(self, block):
                raise ZeroDivisionError

        with running(loaded_model(), dictionary()) as run:
            broken, fine = run.call(prompt(1), observer=Broken()), run.call(prompt(2))
            assert broken.finished().failure == "rule_error"
            assert fine.finished().coverage.complete
            assert run.engine.healthy()

    def test_a_dead_engine_ends_every_request_and_takes_no_more(self) -> None:
        loaded = loaded_model()
        with running(loaded, dictionary()) as run:
            run.call(prompt(1)).finished()

            def crash(*_args, **_kwargs):
                raise RuntimeError("out of memory")

            loaded.layers[0].register_forward_pre_hook(crash)
            calls = [run.call(prompt(n)) for n in range(3)]
            for call in calls:
                finished = call.finished()
                assert finished.reason is FinishReason.ERROR
                assert isinstance(finished.error, Unavailable)
                assert call.text == ""
            assert not run.engine.healthy()
            with pytest.raises(Unavailable, match="does not run"):
                run.call(prompt(9))

    def test_a_cache_that_cannot_hold_one_sequence_is_refused_at_start(self) -> None:
        size = Limits(running=4, batch_tokens=64, cache_tokens=96, page=8)
        with (
            pytest.raises(ModelError, match="raise max_cache_tokens"),
            running(loaded_model(), dictionary(), limits=size),
        ):
            pass

    def test_a_full_queue_is_refused_with_a_delay(self) -> None:
        with running(
            loaded_model(), dictionary(), limits=Limits(running=1, batch_tokens=96), waiting=1
        ) as run:
            calls = [run.call(prompt(n), new=60) for n in range(2)]
            with pytest.raises(Overloaded) as refused:
                run.call(prompt(9), new=60)
            assert refused.value.retry_after > 0
            for call in calls:
                call.finished()

    def test_stop_ends_what_runs_and_refuses_the_rest(self) -> None:
        with running(loaded_model(), dictionary()) as run:
            call = run.call(prompt(1), new=60)
            run.engine.stop(grace=10)
            assert call.finished().reason in (FinishReason.LENGTH, FinishReason.STOP)
            with pytest.raises(Unavailable):
                run.call(prompt(1))

    def test_slots_for_clamps_are_given_back(self) -> None:
        with running(loaded_model(), dictionary()) as run:
            for start in range(20, 90, 8):
                clamps = [Clamp(f, -1.0) for f in range(start, start + 6)]
                run.call(prompt(start), new=3, clamps=clamps).finished()
            with pytest.raises(Overloaded):
                run.call(prompt(1), clamps=[Clamp(f, -1.0) for f in range(20, 60)])
            run.call(prompt(1), new=3, clamps=[Clamp(f, -1.0) for f in range(60, 76)]).finished()
