"""What is left of a generation that ended early, and what a seed is worth."""

import time

import pytest
import torch

from monitor.model.engine.paged import Limits
from monitor.model.engine.requests import GenerationRequest
from monitor.records import Action, Decision, Sampling
from tests.model.families import family_model
from tests.model.running import running
from tests.model.tiny import Recorder, dictionary, loaded_model, prompt


@pytest.mark.slow
def test_what_was_blocked_leaves_no_cache_behind() -> None:
    class Blocking(Recorder):
        def observe(self, block):
            super().observe(block)
            return Decision(action=Action.BLOCK if len(self.blocks) > 3 else Action.ALLOW)

    with running(loaded_model(), dictionary(), clampable=[40, 41]) as run:
        cache = run.engine._batcher._manager.batch_processor.cache
        empty = cache.compute_free_capacity(relative=False)
        for number in range(2, 4):
            run.call(prompt(number), new=20, observer=Blocking()).finished()
        held = [empty]
        for _ in range(100):
            # The library frees at the beginning of a pass, so something must run.
            run.call(prompt(4), new=1).finished()
            held.append(cache.compute_free_capacity(relative=False))
            if held[-1] == empty:
                break
            time.sleep(0.01)
    assert held[-1] == empty, held


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llama", "falcon"])
def test_the_share_of_the_cache_in_use_is_told(kind) -> None:
    """In passes of many requests, and where a pass runs one."""
    seen: list[float] = []

    class Looking(Recorder):
        def observe(self, block):
            seen.append(run.engine.cache_used())
            return super().observe(block)

    loaded = loaded_model() if kind == "llama" else family_model(kind)
    with running(loaded, dictionary(), limits=Limits(running=2, batch_tokens=96)) as run:
        assert run.engine.cache_used() == 0
        calls = [run.call(prompt(number), new=20, observer=Looking()) for number in (2, 3)]
        for call in calls:
            call.finished()
        assert run.engine.cache_used() == 0
    assert all(0 < share <= 1 for share in seen)


@pytest.mark.slow
class TestSeeds:
    """Sixteen seeded requests, alone one after the other, and all at once."""

    def tokens(self, dtype: torch.dtype, running_at_once: int, *, together: bool) -> list[list[int]]:
        found: list[list[int]] = []
        with running(
            loaded_model(dtype=dtype), dictionary(), limits=Limits(running=running_at_once, batch_tokens=96)
        ) as run:
            calls = []
            for number in range(16):
                calls.append(run.call(prompt(number), new=24, temperature=1.3, seed=number))
                if not together:
                    calls[-1].finished()
            for call in calls:
                assert call.finished().coverage.complete
                found.append([token.token_id for token in call.tokens])
        return found

    @pytest.mark.slow
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_one_request_a_pass_repeats_exactly(self, dtype: torch.dtype) -> None:
        alone = self.tokens(dtype, 1, together=False)
        assert self.tokens(dtype, 1, together=True) == alone

    @pytest.mark.slow
    def test_beside_others_float32_repeats_as_far_as_it_goes(self) -> None:
        """A token may change where its random number lies within rounding of a boundary: not in these."""
        alone = self.tokens(torch.float32, 16, together=False)
        assert self.tokens(torch.float32, 16, together=True) == alone


def test_a_seed_says_the_same_however_the_prompt_was_split() -> None:
    ids, said = prompt(7, longest=60), []
    assert len(ids) > 16
    for most in (96, 16, 8):
        limits = Limits(running=4, batch_tokens=most)
        with running(loaded_model(), dictionary(), limits=limits) as run:
            call = run.call(ids, new=12, temperature=1.5, seed=3)
            call.finished()
            said.append([token.token_id for token in call.tokens])
    assert said[0] == said[1] == said[2]


def test_a_request_that_breaks_its_own_sequence_ends_alone(monkeypatch) -> None:
    from monitor.model.engine.sequence import Sequence

    write = Sequence._write

    def broken(self, start, end):
        if self.request_id == "r1":
            raise ValueError("no text")
        return write(self, start, end)

    monkeypatch.setattr(Sequence, "_write", broken)
    with running(loaded_model(), dictionary()) as run:
        calls = [run.call(prompt(n), new=6) for n in range(3)]
        first, *others = [call.finished() for call in calls]
        assert first.error is not None
        assert "no text" not in str(first.error)
        assert all(end.error is None and end.coverage.complete for end in others)
        assert run.engine.healthy()


@pytest.mark.slow
def test_somebody_who_takes_no_events_ends_nobody_else() -> None:
    def refuse(events):
        raise ValueError("no more")

    with running(loaded_model(), dictionary()) as run:
        own = Recorder()
        request = GenerationRequest("refused", prompt(1), Sampling(max_new_tokens=4), own, own)
        run.engine.submit(request, refuse)
        assert run.call(prompt(2), new=8).finished().coverage.complete
        assert run.engine.healthy()
