"""Passes that are launched: the next is laid out, and may write what it likes, before the first is told of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch

from monitor.model.engine.engine import Engine
from monitor.model.engine.paged import Limits
from monitor.model.engine.requests import Released
from monitor.model.tap.span import Span
from monitor.records import Action, Clamp, Decision, FinishReason, TokenBlock, Where
from tests.model.running import WATCHED, Running, running
from tests.model.tiny import VOCABULARY, WIDTH, Recorder, dictionary, encode_all, loaded_model, maxima

CLAMP = Clamp(40, -3.0, Where.EVERYWHERE)


class ByHand:
    """A batcher whose passes are run by the test."""

    static = False

    def __init__(self, _loaded: object, _limits: Limits, steps: Engine) -> None:
        self.steps, self.removed = steps, list[str]()

    def start(self) -> None:
        self.steps.ready(64)

    def stop(self, timeout: float) -> None: ...

    def alive(self) -> bool:
        return True

    def running(self) -> int:
        return 1

    def cache_used(self) -> float:
        return 0.0

    def add(self, request_id: str, prompt_ids: Sequence[int], max_new_tokens: int) -> None: ...

    def remove(self, request_id: str) -> None:
        self.removed.append(request_id)


class Suppresses(Recorder):
    """Clamps once it has seen the token at a position."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def observe(self, block: TokenBlock) -> Decision:
        super().observe(block)
        if block.start + len(block.token_ids) <= self.at:
            return Decision()
        return Decision(clamps=(CLAMP,), suppressing=("policy",), action=Action.SUPPRESS)


@pytest.fixture
def run() -> Iterator[Running]:
    with running(loaded_model(), dictionary(), clampable=[40], batcher=ByHand) as started:
        started.tap.detach()
        yield started


def launch(run: Running, spans: Sequence[Span], seed: int, token: int = 9) -> torch.Tensor:
    """Lay out a pass over random residuals `[rows, d_model]` and launch it; each request draws the same token."""
    rows = sum(span.count for span in spans)
    x = torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(seed))
    run.engine.before(spans, rows)
    run.tap.apply(x, run.tap.current())
    drawing = sum(span.draws for span in spans)
    if drawing:
        logits = torch.zeros(drawing, VOCABULARY)
        logits[:, token] = 1.0
        assert run.engine.draw(logits).tolist() == [token] * drawing
    run.engine.launched()
    return x


def land(run: Running, spans: Sequence[Span], ids: Sequence[int], token: int | None = 9) -> list[str]:
    run.engine.landed()
    run.engine.after(spans, [token if span.draws else None for span in spans], list(ids))
    return run.engine.taken_back()


def readings(x: torch.Tensor) -> np.ndarray:
    found = encode_all(dictionary(), x) / maxima().double()
    return found[:, list(WATCHED)].float().numpy()


def test_each_is_told_of_with_what_it_read_and_drew(run: Running) -> None:
    one, two = run.call((5, 6, 7), new=9), run.call((5, 6), new=9)
    first = [Span("r1", 0, 3, 0, True), Span("r2", 3, 2, 0, True)]
    second = [Span("r2", 0, 1, 2, True), Span("r1", 1, 1, 3, True)]
    third = [Span("r1", 0, 1, 4, True), Span("r2", 1, 1, 3, True)]
    x = [launch(run, spans, seed, token) for seed, (spans, token) in enumerate(((first, 9), (second, 8)))]
    assert land(run, first, [5, 6, 7, 5, 6]) == []
    x.append(launch(run, third, 2, 7))
    assert land(run, second, [9, 9], 8) == []
    assert land(run, third, [8, 8], 7) == []
    np.testing.assert_allclose(
        one.readings, readings(torch.cat([x[0][:3], x[1][1:], x[2][:1]])), rtol=1e-3, atol=1e-5
    )
    np.testing.assert_allclose(
        two.readings, readings(torch.cat([x[0][3:], x[1][:1], x[2][1:]])), rtol=1e-3, atol=1e-5
    )
    assert [token.token_id for token in one.tokens] == [5, 6, 7, 9, 8]
    run.engine.cancel("r1")
    run.engine.before([], 0)
    assert one.finished().reason is FinishReason.CANCELLED
    assert one.finished().coverage.complete


def test_what_was_laid_out_before_a_suppression_began_runs_again(run: Running) -> None:
    call, beside = run.call((5, 6, 7), new=9, observer=Suppresses(3)), run.call((5, 6), new=9)
    first = [Span("r1", 0, 3, 0, True), Span("r2", 3, 2, 0, True)]
    second = [Span("r1", 0, 1, 3, True), Span("r2", 1, 1, 2, True)]
    third = [Span("r1", 0, 1, 4, True), Span("r2", 1, 1, 3, True)]
    launch(run, first, 0)
    launch(run, second, 1)
    assert land(run, first, [5, 6, 7, 5, 6]) == []
    launch(run, third, 2)
    assert land(run, second, [9, 9]) == ["r1"], "its token at position 3 was seen, so that at 4 is clamped"
    assert run.engine.scored("r1") == 4
    # Meanwhile the pass that was taken back is over, and says what nobody asked for.
    again = [Span("r1", 0, 5, 0, True), Span("r2", 5, 1, 4, True)]
    launch(run, again, 3)
    assert run.tap.current().chosen[:6].any(-1).tolist() == [False] * 4 + [True, False]
    assert land(run, third, [8, 9]) == []
    assert [block.start for block in call.observer.blocks] == [0, 3]
    assert [block.start for block in beside.observer.blocks] == [0, 2, 3]
    assert land(run, again, [5, 6, 7, 9, 9, 9]) == []
    assert [block.start for block in call.observer.blocks] == [0, 3, 4]
    assert [token.token_id for token in call.tokens] == [5, 6, 7, 9, 9]


def test_what_has_ended_is_not_told_of_again(run: Running) -> None:
    call = run.call((5, 6, 7), new=1)
    first, second = [Span("r1", 0, 3, 0, True)], [Span("r1", 0, 1, 3, True)]
    third = [Span("r1", 0, 1, 4, True)]
    launch(run, first, 0)
    launch(run, second, 1)
    land(run, first, [5, 6, 7])
    launch(run, third, 2)
    land(run, second, [9])
    assert call.finished().reason is FinishReason.LENGTH
    land(run, third, [9])
    assert call.finished().coverage.tokens_run == 4
    assert run.engine._batcher.removed == ["r1"]


def test_what_an_earlier_pass_read_is_shown_as_if_it_ran(run: Running) -> None:
    first, second = run.call((5, 6, 7), new=4), run.call((5, 6, 8), new=4, observer=Suppresses(1))
    spans = [Span("r1", 0, 3, 0, True)]
    launch(run, spans, 0)
    run.engine.landed()
    taken = run.engine.taken(3)
    run.engine.after(spans, [9], [5, 6, 7])
    run.engine.replay([Span("r2", 0, 2, 0, False), Span("nobody", 2, 1, 0, False)], taken, [5, 6, 7])
    assert run.engine.scored("r2") == 2
    assert not run.engine.plain("r2"), "what was shown began a suppression"
    assert run.engine.taken_back() == [], "no pass was laid out without it"
    np.testing.assert_array_equal(second.readings, first.readings[:2])
    assert run.engine.passes() == 1
    run.engine.replay([Span("r2", 0, 1, 2, False)], taken, [9])
    assert second.finished().reason is FinishReason.POLICY, "other tokens than its own cannot be its"


def test_log_probabilities_are_those_of_a_requests_own_row_where_another_has_left(run: Running) -> None:
    """Whoever runs passes drops a request that was cancelled meanwhile, and tells no token of it."""
    run.call((5, 6, 7), new=4, logprobs=1)
    stays = run.call((5, 6), new=4, logprobs=1)
    spans = [Span("r1", 0, 3, 0, True), Span("r2", 3, 2, 0, True)]
    run.engine.before(spans, 5)
    run.tap.apply(torch.randn(5, WIDTH), run.tap.current())
    logits = torch.zeros(2, VOCABULARY)
    logits[0, 9], logits[1, 8] = 3.0, 7.0
    assert run.engine.draw(logits).tolist() == [9, 8]
    run.engine.launched()
    run.engine.landed()
    run.engine.after(spans, [None, 8], [5, 6, 7, 5, 6])
    second = [Span("r2", 0, 1, 2, True)]
    launch(run, second, 1)
    land(run, second, [8])
    (told,) = [one for event in stays.events if isinstance(event, Released) for one in event.logprobs]
    assert told.logprob == pytest.approx(float(logits[1].log_softmax(-1)[8]))
    assert [token for token, _ in told.likeliest] == [8]
