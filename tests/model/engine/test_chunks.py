"""Texts longer than a pass: read in chunks as they are read whole, and interruptible between two of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from monitor.errors import BadRequest, MonitoringFailed, TooLong, Unavailable
from monitor.model.engine import chunks
from monitor.model.engine.chunks import Chunks
from monitor.model.engine.requests import Lease, ScoreJob
from monitor.model.engine.scorer import Scorer
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.tap import Tap
from monitor.records import Action, Failure
from tests.model.engine.test_scorer import Waiting
from tests.model.families import FAMILIES, RECURRENT, family_model
from tests.model.load import test_rope
from tests.model.running import LAYER, WATCHED, running
from tests.model.tiny import CONFIGS, CONTEXT, Recorder, dictionary, loaded_model, maxima, prompt
from tests.waiting import wait_for

LONG = tuple((7 * i * i + 3 * i) % 250 + 2 for i in range(CONTEXT))


def model(kind: str):
    return loaded_model(kind) if kind in CONFIGS else family_model(kind)


def whole(loaded, ids) -> torch.Tensor:
    texts = Chunks(loaded, loaded.layers[LAYER], CONTEXT)
    return torch.cat([part for _, part in texts.residuals(ids)])


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted({*CONFIGS, *FAMILIES} - RECURRENT.keys()))
def test_chunks_read_what_one_pass_reads(kind: str) -> None:
    loaded = model(kind)
    texts = Chunks(loaded, loaded.layers[LAYER], 16)
    texts.rehearse()
    assert texts.why_whole == ""
    parts = list(texts.residuals(LONG))
    assert [start for start, _ in parts] == list(range(0, CONTEXT, 16))
    torch.testing.assert_close(torch.cat([x for _, x in parts]), whole(loaded, LONG), rtol=1e-4, atol=5e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(RECURRENT))
def test_recurrent_families_run_whole_up_to_a_limit(kind: str) -> None:
    loaded = model(kind)
    texts = Chunks(loaded, loaded.layers[LAYER], 16)
    texts.rehearse()
    assert "recurrent" in texts.why_whole
    assert [start for start, _ in texts.residuals(LONG[:64])] == [0]
    with pytest.raises(TooLong, match=r"65 tokens long, and at most 64 run in one pass here"):
        next(texts.residuals(LONG[:65]))


def test_prompts_of_recurrent_families_are_bounded_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "PASS", {True: 16, False: 16})
    with running(family_model("rwkv"), dictionary()) as run:
        with pytest.raises(TooLong, match="65 tokens long, and at most 64 run in one pass here"):
            run.call(LONG[:65])
        assert run.call(LONG[:64], new=2).finished().coverage.complete


def test_a_family_that_forgets_its_past_is_found_out() -> None:
    loaded = loaded_model()
    forward = loaded.model.model.forward

    def forgetful(*args, past_key_values=None, **options):
        return forward(*args, past_key_values=None, **options)

    loaded.model.model.forward = forgetful
    texts = Chunks(loaded, loaded.layers[LAYER], 16)
    texts.rehearse()
    assert texts.why_whole == "it reads a text in parts otherwise than whole"


def test_a_family_that_fails_over_a_past_is_found_out() -> None:
    loaded = loaded_model()
    forward = loaded.model.model.forward

    def failing(*args, past_key_values=None, **options):
        if past_key_values is not None and past_key_values.get_seq_length():
            raise NotImplementedError
        return forward(*args, past_key_values=past_key_values, **options)

    loaded.model.model.forward = failing
    texts = Chunks(loaded, loaded.layers[LAYER], 16)
    texts.rehearse()
    assert "NotImplementedError" in texts.why_whole


@pytest.mark.parametrize("kind", sorted(test_rope.ROPES))
def test_where_length_turns_every_token_each_chunk_goes_by_the_whole_text(kind: str) -> None:
    loaded = test_rope.model(kind)
    texts = Chunks(loaded, loaded.layers[LAYER], 16)
    texts.rehearse()
    assert texts.why_whole == ""
    for length in (20, test_rope.SHORT + 1, 100):
        ids = test_rope.text(length)
        found = torch.cat([part for _, part in texts.residuals(ids)])
        torch.testing.assert_close(
            found.double(), test_rope.alone(kind, ids).reshape(found.shape), rtol=1e-3, atol=1e-4
        )


def test_later_chunks_are_shorter_so_that_each_costs_about_the_same() -> None:
    loaded = loaded_model()
    texts = Chunks(replace(loaded, context=1 << 17), loaded.layers[LAYER], 2048)
    start, shortest = 0, 0
    while start < texts.longest:
        end = texts.end(start, texts.longest)
        assert (end - start) * end <= 2048**2 or end - start == 128
        shortest += end - start == 128
        start = end
    assert 0 < shortest < 1000


@contextmanager
def scoring(loaded=None, most: int = 16) -> Iterator[Scorer]:
    loaded = loaded or loaded_model()
    bank = FeatureBank(dictionary(), maxima(), WATCHED)
    tap = Tap(bank, loaded.layers[LAYER])
    scorer = Scorer(loaded, bank, tap, batch_tokens=most)
    tap.attach()
    scorer.start()
    try:
        yield scorer
    finally:
        scorer.stop(5)
        tap.detach()


@contextmanager
def held(scorer: Scorer, passes: int) -> Iterator[threading.Event]:
    """The scorer's passes after so many wait until the event is set."""
    gate, run, seen = threading.Event(), scorer.chunks.run, [0]

    def slow(ids, lengths, past=None):
        seen[0] += 1
        assert seen[0] <= passes or gate.wait(60)
        run(ids, lengths, past)

    scorer.chunks.run = slow
    yield gate
    gate.set()


class TestScoring:
    def test_a_long_text_reads_as_a_short_one_would(self) -> None:
        with scoring(most=CONTEXT) as scorer:
            waiting = Waiting(scorer)
            waiting.submit("whole", LONG, include_tokens=True)
            expected = waiting.result("whole")
            [block] = waiting.observers["whole"].blocks
        with scoring() as scorer:
            waiting = Waiting(scorer)
            waiting.submit("cut", LONG, include_tokens=True)
            found = waiting.result("cut")
            parts = waiting.observers["cut"].blocks
            assert scorer.passes() == CONTEXT // 16
        assert [part.start for part in parts] == list(range(0, CONTEXT, 16))
        np.testing.assert_allclose(
            np.concatenate([part.readings for part in parts]), block.readings, rtol=1e-4, atol=1e-5
        )
        assert found.coverage == expected.coverage
        assert found.tokens.token_ids == LONG
        assert found.tokens.start == 0
        np.testing.assert_allclose(found.tokens.readings, expected.tokens.readings, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("boundary", [5, 32, 40, CONTEXT])
    def test_prompt_and_response_are_told_apart_in_every_chunk(self, boundary: int) -> None:
        with scoring() as scorer:
            waiting = Waiting(scorer)
            waiting.submit("a", LONG, prompt=boundary)
            assert waiting.result("a").coverage.complete
            blocks = waiting.observers["a"].blocks
        ids = {"prompt": (), "response": ()}
        for block in blocks:
            assert block.start == len(ids["prompt"]) + len(ids["response"])
            ids[block.phase.value] += block.token_ids
        assert ids == {"prompt": LONG[:boundary], "response": LONG[boundary:]}

    def test_short_texts_and_other_threads_run_between_chunks(self) -> None:
        loaded = loaded_model()
        with scoring(loaded) as scorer, held(scorer, 2) as gate:
            waiting = Waiting(scorer)
            waiting.submit("long", LONG)
            wait_for(lambda: scorer.passes() == 2)
            waiting.submit("short", prompt(1, 10))
            with loaded.passes:  # the model is free meanwhile
                pass
            gate.set()
            waiting.result("short")
            assert waiting.result("long").coverage.complete
            assert scorer.passes() == CONTEXT // 16 + 1
            assert list(waiting.outcomes) == ["short", "long"]

    def test_two_long_texts_run_one_after_the_other(self) -> None:
        with scoring() as scorer:
            waiting = Waiting(scorer)
            for name in ("one", "two"):
                waiting.submit(name, LONG)
            for name in ("one", "two"):
                assert waiting.result(name).coverage.complete
            assert scorer.passes() == 2 * CONTEXT // 16

    def test_nobody_scores_on_for_a_caller_who_left(self) -> None:
        with scoring() as scorer, held(scorer, 2) as gate:
            waiting = Waiting(scorer)
            waiting.submit("long", LONG)
            wait_for(lambda: scorer.passes() == 2)
            assert scorer.running() == 1
            scorer.cancel("long")
            gate.set()
            wait_for(lambda: scorer.running() == scorer.queue_depth() == 0)
            assert scorer.passes() <= 3
            waiting.submit("next", prompt(1, 10))
            assert waiting.result("next").coverage.complete
            assert "long" not in waiting.outcomes

    def test_a_stop_ends_it_between_chunks(self) -> None:
        with scoring() as scorer, held(scorer, 2) as gate:
            waiting = Waiting(scorer)
            waiting.submit("long", LONG)
            wait_for(lambda: scorer.passes() == 2)
            scorer.stop(0.05)
            gate.set()
            assert isinstance(waiting.result("long").error, Unavailable)
            assert scorer.passes() <= 3

    def test_a_chunk_that_fails_ends_the_text_and_tells_how_far_it_came(self) -> None:
        with scoring() as scorer:
            run, seen = scorer.chunks.run, []

            def fail(ids, lengths, past=None):
                seen.append(ids)
                if len(seen) == 3:
                    raise RuntimeError("planted")
                run(ids, lengths, past)

            scorer.chunks.run = fail
            waiting = Waiting(scorer)
            waiting.submit("closed", LONG)
            closed = waiting.result("closed")
            assert isinstance(closed.error, MonitoringFailed)
            assert closed.error.cause is Failure.PASS_FAILED
            assert (closed.coverage.tokens_run, closed.coverage.tokens_scored) == (CONTEXT, 32)
            waiting.submit("after", LONG)
            assert waiting.result("after").coverage.complete

    def test_a_chunk_that_is_no_number_is_counted_and_the_rest_is_scored(self) -> None:
        loaded = loaded_model()
        ids = (*LONG[:40], 255, *LONG[41:])

        def embed(_module: object, args: tuple, embedded: torch.Tensor) -> torch.Tensor:
            return embedded.masked_fill((args[0] == 255).unsqueeze(-1), float("nan"))

        loaded.model.get_input_embeddings().register_forward_hook(embed)
        with scoring(loaded) as scorer:
            waiting = Waiting(scorer)
            waiting.submit("a", ids, Recorder(on_error=Action.ALLOW))
            outcome = waiting.result("a")
        assert outcome.error is None
        assert (outcome.coverage.tokens_run, outcome.coverage.tokens_scored) == (CONTEXT, 32)
        assert scorer.unscored_passes() == 6

    def test_nothing_is_scored_of_no_tokens(self) -> None:
        with scoring() as scorer, pytest.raises(BadRequest, match="has no tokens"):
            scorer.submit(ScoreJob("a", (), Recorder(), Recorder()), lambda _: None)


class TestNeighbours:
    """Texts that share a pass."""

    def together(
        self, scorer: Scorer, waiting: Waiting, texts: dict[str, tuple[int, ...]], **jobs: dict
    ) -> None:
        with held(scorer, 0) as gate:
            waiting.submit("first", prompt(1, 10))
            wait_for(lambda: scorer.queue_depth() == 0)
            for name, ids in texts.items():
                waiting.submit(name, ids, **jobs.get(name, {}))
            gate.set()
            for name in texts:
                waiting.result(name)

    def test_what_is_wrong_with_padding_reaches_nobody(self) -> None:
        loaded = loaded_model()

        def embed(_module: object, args: tuple, embedded: torch.Tensor) -> torch.Tensor:
            return embedded.masked_fill((args[0] == 0).unsqueeze(-1), float("nan"))

        loaded.model.get_input_embeddings().register_forward_hook(embed)
        with scoring(loaded, 64) as scorer:
            waiting = Waiting(scorer)
            self.together(scorer, waiting, {"short": LONG[:9], "longer": LONG[:12]})
            assert scorer.passes() == 2
            assert waiting.outcomes["short"].coverage.complete
            assert waiting.outcomes["longer"].coverage.complete

    def test_a_text_that_cannot_be_run_fails_alone(self) -> None:
        with scoring(most=64) as scorer:
            run = scorer.chunks.run

            def fail(ids, lengths, past=None):
                if (ids == 255).any():
                    raise IndexError
                run(ids, lengths, past)

            scorer.chunks.run = fail
            waiting = Waiting(scorer)
            self.together(scorer, waiting, {"sound": LONG[:9], "broken": (5, 255, 6), "other": LONG[:7]})
        assert waiting.outcomes["broken"].error.cause is Failure.PASS_FAILED
        for name in ("sound", "other"):
            assert waiting.outcomes[name].coverage.complete
            assert waiting.observers[name].failures == []

    def test_whoever_cannot_take_an_outcome_ends_neither_the_scorer_nor_others(self) -> None:
        with scoring(most=64) as scorer:
            waiting = Waiting(scorer)

            def deaf(_outcomes: object) -> None:
                raise RuntimeError("planted")

            def silent() -> None:
                raise RuntimeError("planted")

            own = Recorder()
            with held(scorer, 0) as gate:
                waiting.submit("first", prompt(1, 10))
                wait_for(lambda: scorer.queue_depth() == 0)
                scorer.submit(ScoreJob("deaf", LONG[:9], own, own), deaf)
                waiting.submit("silent", LONG[:9], admitted=silent)
                waiting.submit("sound", LONG[:9])
                gate.set()
                assert waiting.result("sound").coverage.complete
            assert waiting.result("silent").error.cause is Failure.PASS_FAILED
            assert scorer.healthy()

    def test_a_share_that_cannot_be_given_back_ends_neither_the_scorer_nor_others(self) -> None:
        def stuck() -> None:
            raise KeyError("planted")

        with scoring() as scorer:
            waiting = Waiting(scorer)
            for name, ids in (("short", LONG[:9]), ("in chunks", LONG)):
                lease = Lease(slice(0, len(WATCHED)), stuck)
                with held(scorer, 0) as gate:
                    waiting.submit(name, ids, lease=lease)
                    lease.release()
                    gate.set()
                assert waiting.result(name).coverage.complete
            waiting.submit("sound", LONG[:9])
            assert waiting.result("sound").coverage.complete
            assert scorer.healthy()
