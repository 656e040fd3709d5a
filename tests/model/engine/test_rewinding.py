"""Response tokens taken back and written again under clamps, against plain float64 sequences."""

import time
from dataclasses import dataclass, field

import torch

from monitor.model.engine.paged import Limits
from monitor.model.engine.requests import GenerationRequest, Released
from monitor.records import Action, Clamp, Decision, FinishReason, Phase, Sampling, Where
from tests.model.running import LAYER, Call, Running, running
from tests.model.tiny import Recorder, dictionary, loaded_model, maxima, plain_generate, prompt

CLAMPS = (Clamp(3, -1.0), Clamp(40, -2.0, Where.EVERYWHERE), Clamp(41, 0.5))


@dataclass
class Rewinding(Recorder):
    """Takes `back` response tokens back, once, when the response has `at` of them; clamps from then on."""

    at: int = 5
    back: int = 3
    lag: int = 4
    phase: Phase = Phase.RESPONSE
    taken: list[int] = field(default_factory=list)
    start: int | None = None

    def begin(self):
        return Decision(lag=self.lag)

    def observe(self, block):
        super().observe(block)
        if block.phase is Phase.RESPONSE and self.start is None:
            self.start = block.start
        end = block.start + len(block.token_ids)
        if self.taken:
            return Decision(clamps=CLAMPS, lag=self.lag)
        due = self.phase is Phase.PROMPT or (self.start is not None and end == self.start + self.at)
        if not due:
            return Decision(lag=self.lag)
        self.taken.append(end - self.back if self.phase is Phase.RESPONSE else end)
        return Decision(clamps=CLAMPS, lag=self.lag, restart=self.taken[0])


class TestTakingBack:
    def call(self, run: Running, ids, new, observer) -> Call:
        return run.call(ids, new=new, observer=observer)

    def test_what_follows_equals_a_plain_sequence_clamped_from_its_start(self) -> None:
        exact = loaded_model(dtype=torch.float64)
        with running(loaded_model(), dictionary(), clampable=[40, 41]) as run:
            beside = [run.call(prompt(n), new=14) for n in range(20, 24)]
            calls = [self.call(run, prompt(n), 14, Rewinding()) for n in range(6)]
            finished = [call.finished() for call in calls]
            for call in beside:
                call.finished()
        for call, last in zip(calls, finished, strict=True):
            if not call.observer.taken:
                assert last.reason is FinishReason.STOP
                continue
            keep, count = call.observer.taken[0], len(call.ids)
            plain, _ = plain_generate(exact.model, exact.layers[LAYER], dictionary(), maxima(), call.ids, 14)
            prefix = tuple(plain[:keep])
            wanted, _ = plain_generate(
                exact.model, exact.layers[LAYER], dictionary(), maxima(), prefix, 14 - (keep - count), CLAMPS
            )
            assert [token.token_id for token in call.tokens] == wanted
            assert (last.coverage.tokens_rewound, last.coverage.complete) == (3, True)
            assert last.coverage.tokens_run == len(wanted) + 3
            assert last.released == len(wanted)
        assert any(call.observer.taken for call in calls)

    def test_a_prompt_is_run_again_clamped(self) -> None:
        exact = loaded_model(dtype=torch.float64)
        with running(loaded_model(), dictionary(), clampable=[40, 41]) as run:
            call = run.call(prompt(3), new=6, observer=Rewinding(phase=Phase.PROMPT))
            last = call.finished()
        wanted, _ = plain_generate(
            exact.model, exact.layers[LAYER], dictionary(), maxima(), call.ids, 6, CLAMPS
        )
        assert [token.token_id for token in call.tokens] == wanted
        assert last.coverage.tokens_rewound == 0
        assert last.tokens_clamped + 1 == last.coverage.tokens_run == len(wanted)

    def test_nothing_that_was_shown_is_taken_back_and_nothing_waits_at_the_end(self) -> None:
        seen: list[int] = []
        call = Call(prompt(1), Rewinding(at=6, back=4, lag=4))
        with running(loaded_model(), dictionary(), clampable=[40, 41]) as run:

            def emit(event):
                if isinstance(event, Released):
                    seen.extend(token.position for token in event.tokens)
                call.emit(event)

            request = GenerationRequest(
                "a", call.ids, Sampling(max_new_tokens=12), call.observer, include_tokens=True
            )
            run.engine.submit(request, emit)
            last = call.finished()
        assert seen == list(range(last.released))
        assert last.released == last.coverage.tokens_run - last.coverage.tokens_rewound

    def test_a_lag_alone_changes_nothing_but_when(self) -> None:
        with running(loaded_model(), dictionary()) as run:
            plain = run.call(prompt(5), new=20)
            plain.finished()
            stop = plain.text[8:11]
            late = run.call(prompt(5), new=20, observer=Rewinding(at=99, lag=7))
            late.finished()
            stopped = run.call(prompt(5), new=20, observer=Rewinding(at=99, lag=7), stop=(stop,))
            last = stopped.finished()
        assert late.text == plain.text
        assert last.reason is FinishReason.STOP
        assert stopped.text == plain.text[: plain.text.index(stop)]

    def test_a_cancelled_request_is_not_run_again(self) -> None:
        with running(loaded_model(), dictionary(), clampable=[40, 41]) as run:
            call = run.call(prompt(2), new=100, observer=Rewinding(at=2, back=1, lag=2))
            run.engine.cancel("r1")
            assert call.finished().reason in (FinishReason.CANCELLED, FinishReason.STOP)
            after = run.call(prompt(2), new=4)
            assert after.finished().coverage.complete


def test_what_was_blocked_or_run_again_leaves_no_cache_behind() -> None:
    class Blocking(Recorder):
        def observe(self, block):
            super().observe(block)
            return Decision(action=Action.BLOCK if len(self.blocks) > 3 else Action.ALLOW)

    with running(loaded_model(), dictionary(), clampable=[40, 41]) as run:
        cache = run.engine._batcher._manager.batch_processor.cache
        empty = cache.compute_free_capacity(relative=False)
        blocked = run.call(prompt(2), new=20, observer=Blocking())
        again = run.call(prompt(3), new=12, observer=Rewinding())
        assert blocked.finished().reason is FinishReason.POLICY
        again.finished()
        held = [empty]
        for _ in range(100):
            # The library frees at the beginning of a pass, so something must run.
            run.call(prompt(4), new=1).finished()
            held.append(cache.compute_free_capacity(relative=False))
            if held[-1] == empty:
                break
            time.sleep(0.01)
    assert held[-1] == empty, held


def test_a_seed_says_the_same_however_the_prompt_was_split() -> None:
    ids, said = prompt(7, longest=60), []
    assert len(ids) > 16
    for most in (96, 16, 8):
        with running(
            loaded_model(), dictionary(), clampable=[40, 41], limits=Limits(running=4, batch_tokens=most)
        ) as run:
            call = run.call(ids, new=12, observer=Rewinding(phase=Phase.PROMPT), temperature=1.5, seed=3)
            call.finished()
            said.append([token.token_id for token in call.tokens])
    assert said[0] == said[1] == said[2]
