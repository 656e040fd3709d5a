"""Models that continuous batching cannot run: requests take turns, each as exact and as alone as in a batch."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from monitor.errors import Overloaded, Unavailable
from monitor.model.engine import serial
from monitor.model.engine.paged import Limits
from monitor.records import Action, Decision, Failure, FinishReason
from tests.model.engine.test_engine import CLAMPS, some_calls
from tests.model.families import SEPARATE, family_model
from tests.model.running import LAYER, WATCHED, Call, running
from tests.model.tiny import (
    Recorder,
    dictionary,
    maxima,
    plain_generate,
    prompt,
)

CHUNK = 16
LIMITS = Limits(running=4, batch_tokens=CHUNK)


def check(call: Call, kind: str, new: int, clamps: tuple = ()) -> None:
    """Tokens and readings are those of a plain float64 forward over the whole text for every token."""
    finished, exact = call.finished(), family_model(kind, torch.float64)
    assert finished.coverage.complete
    assert finished.coverage.tokens_run == finished.coverage.tokens_scored == len(call.readings)
    tokens, activations = plain_generate(
        exact.model, exact.layers[LAYER], dictionary(), maxima(), call.ids, new, clamps
    )
    assert [token.token_id for token in call.tokens] == tokens
    wanted = (activations[:, list(WATCHED)] / maxima()[list(WATCHED)]).numpy()
    # Small readings are differences of large numbers; RWKV's are thirty times the others'.
    np.testing.assert_allclose(call.readings, wanted, rtol=1e-4, atol=1e-5 + 2e-6 * wanted.max())


class TestExactness:
    @pytest.mark.slow
    @pytest.mark.parametrize("kind", list(SEPARATE))
    def test_readings_and_clamps_at_prefill_and_decode(self, kind: str) -> None:
        with running(family_model(kind), dictionary(), limits=LIMITS) as run:
            assert run.engine.why_separate
            calls = [(run.call(prompt(n), new=5, clamps=c), c) for n in range(3) for c in ((), CLAMPS)]
            for call, clamps in calls:
                check(call, kind, 5, clamps)

    @pytest.mark.slow
    def test_arrivals_and_cancellations(self) -> None:
        with running(family_model("falcon"), dictionary(), limits=LIMITS) as run:
            for call, clamps in some_calls(run, 18, 8):
                check(call, "falcon", 8, clamps)

    @pytest.mark.parametrize("kind", ["falcon", "gpt_neo", "deepseek_v3"])
    def test_unclamped_tokens_and_logits_are_those_of_generate(self, kind: str) -> None:
        """Bit by bit: the same model, run alone by the library with the same chunks, computes nothing else."""
        loaded, ids, new = family_model(kind), (0, *range(2, 42)), 8
        with running(loaded, dictionary(), limits=LIMITS) as run:
            run.engine._end_ids = frozenset()
            logits, draw = [], run.engine.draw
            run.engine.draw = lambda scores: (logits.append(scores[0].clone()), draw(scores))[1]
            call = run.call(ids, new=new)
            call.finished()
        plain = loaded.model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
            do_sample=False,
            max_new_tokens=new,
            prefill_chunk_size=CHUNK,
            eos_token_id=-1,
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
        assert [token.token_id for token in call.tokens] == plain.sequences[0].tolist()
        assert all(map(torch.equal, logits, (step[0] for step in plain.logits)))

    def test_neighbours_of_a_clamped_request_are_bit_identical(self) -> None:
        def neighbours(clamps: tuple) -> tuple[list, list]:
            with running(family_model("falcon"), dictionary(), limits=LIMITS) as run:
                calls = [run.call(prompt(n), new=10) for n in range(3)]
                busy = run.call(prompt(50), new=10, clamps=clamps)
                calls += [run.call(prompt(n), new=10) for n in range(3, 6)]
                assert (busy.finished().tokens_clamped > 0) == bool(clamps)
                for call in calls:
                    call.finished()
            return [call.readings for call in calls], [[t.token_id for t in call.tokens] for call in calls]

        readings, tokens = neighbours(())
        beside_readings, beside_tokens = neighbours(CLAMPS)
        assert tokens == beside_tokens
        assert all(map(np.array_equal, readings, beside_readings))

    def test_a_policy_suppresses_from_a_detection_on(self) -> None:
        class Later(Recorder):
            def observe(self, block):
                super().observe(block)
                return Decision(clamps=CLAMPS if len(self.blocks) >= 3 else ())

        ids = (0, *range(2, 22))
        with running(family_model("falcon"), dictionary(), clampable=[40, 41], limits=LIMITS) as run:
            call = run.call(ids, new=6, observer=Later())
            finished = call.finished()
        edited = [token.position for token in call.tokens if any(r.after is not None for r in token.readings)]
        assert finished.coverage.complete
        assert edited
        assert min(edited) == call.observer.blocks[3].start
        assert len(edited) == finished.tokens_clamped


class TestFailures:
    @pytest.mark.slow
    def test_an_exception_in_a_pass_ends_every_request_and_releases_nothing(self, monkeypatch) -> None:
        logged = []
        kept = SimpleNamespace(exception=lambda event: logged.append((event, str(sys.exception()))))
        monkeypatch.setattr(serial, "_log", kept)
        loaded = family_model("falcon")
        with running(loaded, dictionary(), limits=LIMITS) as run:
            run.call(prompt(1)).finished()

            def crash(*_args, **_kwargs):
                raise RuntimeError("planted")

            loaded.layers[0].register_forward_pre_hook(crash)
            calls = [run.call(prompt(n)) for n in range(6)]
            for call in calls:
                assert call.finished().reason is FinishReason.ERROR
                assert isinstance(call.finished().error, Unavailable)
                assert call.text == ""
            assert not run.engine.healthy()
            with pytest.raises(Unavailable, match="does not run"):
                run.call(prompt(9))
        assert logged == [("a pass failed; the engine ends", "planted")]

    def test_a_tap_that_is_gone_never_looks_clean(self) -> None:
        with running(family_model("falcon"), dictionary(), limits=LIMITS) as run:
            run.tap.detach()
            closed, opened = (
                run.call(prompt(1)),
                run.call(prompt(1), observer=Recorder(on_error=Action.ALLOW)),
            )
            assert (closed.finished().error.cause, closed.text) == (Failure.TAP_MISSED, "")
            assert not opened.finished().coverage.complete

    def test_a_full_queue_and_a_stop(self) -> None:
        with running(family_model("falcon"), dictionary(), limits=Limits(running=1), waiting=1) as run:
            held = run.engine._loaded.passes
            with held:  # nobody finishes while the queue is looked at
                calls = [run.call(prompt(n), new=60) for n in range(2)]
                with pytest.raises(Overloaded):
                    run.call(prompt(9))
            run.engine.stop(grace=0)
            for call in calls:
                call.finished()
            with pytest.raises(Unavailable):
                run.call(prompt(9))
