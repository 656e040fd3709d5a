"""What policies and failures do to a generation: block, suppress, withhold, end, refuse; never release unscored."""

import pytest
import torch

from monitor.errors import ModelError, MonitoringFailed, Overloaded, Unavailable
from monitor.model.engine.paged import Limits
from monitor.records import Action, Clamp, Decision, Failure, FinishReason
from tests.model.engine.test_engine import CLAMPS
from tests.model.running import running
from tests.model.tiny import Recorder, dictionary, loaded_model, prompt


class TestPolicies:
    @pytest.mark.slow
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

    @pytest.mark.slow
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

    @pytest.mark.slow
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

    @pytest.mark.slow
    def test_a_clamp_holds_at_the_layer(self) -> None:
        # An orthogonal decoder, so that re-encoding sees what the clamp wrote and nothing else.
        sae = dictionary("relu", features=32)
        basis, _ = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(4)))
        sae = type(sae)(
            **{**sae.__dict__, "encoder": basis, "decoder": basis, "encoder_bias": torch.zeros(32)}
        )
        with running(loaded_model(), sae) as run:
            call = run.call(prompt(8), clamps=[Clamp(5, -1.0), Clamp(8, 2.0)])
            call.finished()
        found = [r for t in call.tokens for r in t.readings if r.after is not None]
        five = [r.after for r in found if r.feature == 5 and r.reading > 0]
        eight = [r.after for r in found if r.feature == 8 and r.reading > 0]
        assert five == [0.0] * len(five)
        assert eight == pytest.approx([2.0] * len(eight), rel=1e-4)
        assert five
        assert eight


class TestFailures:
    def test_a_hook_that_was_removed_never_looks_clean(self) -> None:
        with running(loaded_model(), dictionary()) as run:
            run.tap.detach()
            closed = run.call(prompt(1))
            left_open = run.call(prompt(1), observer=Recorder(on_error=Action.ALLOW))
            first, second = closed.finished(), left_open.finished()
        assert first.reason is FinishReason.POLICY
        assert isinstance(first.error, MonitoringFailed)
        assert (first.error.cause, first.released, first.coverage.tokens_scored) == (Failure.TAP_MISSED, 0, 0)
        assert (second.error, second.coverage.complete) == (None, False)
        assert set(left_open.observer.failures) == {Failure.TAP_MISSED}
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
            assert broken.finished().reason is FinishReason.POLICY
            assert broken.observer.failures == [Failure.NON_FINITE]
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
            assert broken.finished().error.cause is Failure.RULE_ERROR
            assert not broken.finished().coverage.complete
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
            pytest.raises(
                ModelError, match=r"set max_cache_tokens to at least 128, or context_limit to at most 96"
            ),
            running(loaded_model(), dictionary(), limits=size),
        ):
            pass

    @pytest.mark.slow
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

    @pytest.mark.slow
    def test_stop_ends_what_runs_and_refuses_the_rest(self) -> None:
        with running(loaded_model(), dictionary()) as run:
            call = run.call(prompt(1), new=60)
            run.engine.stop(grace=10)
            assert call.finished().reason in (FinishReason.LENGTH, FinishReason.STOP)
            with pytest.raises(Unavailable):
                run.call(prompt(1))

    @pytest.mark.slow
    def test_slots_for_clamps_are_given_back(self) -> None:
        with running(loaded_model(), dictionary()) as run:
            for start in range(20, 90, 8):
                clamps = [Clamp(f, -1.0) for f in range(start, start + 6)]
                run.call(prompt(start), new=3, clamps=clamps).finished()
            with pytest.raises(Overloaded):
                run.call(prompt(1), clamps=[Clamp(f, -1.0) for f in range(20, 60)])
            run.call(prompt(1), new=3, clamps=[Clamp(f, -1.0) for f in range(60, 76)]).finished()
