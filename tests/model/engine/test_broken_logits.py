"""Logits that are no numbers: nothing is drawn from them, whoever has them is told, and nobody else notices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from monitor.errors import NotComputed
from monitor.model.engine.sampler import Draw, Sampler
from monitor.records import FinishReason, Sampling
from tests.model.running import Running, running
from tests.model.tiny import dictionary, loaded_model, prompt

MARKED = 13
"""The seed of the request whose logits break."""
SOUND = 4
"""Tokens that it draws before."""


class Spoiled(Sampler):
    """Breaks the logits of one request from its fifth token on."""

    def __init__(self, rows: int, device: torch.device, *, static: bool = False) -> None:
        super().__init__(rows, device, static=static)
        self.value = float("nan")
        self._marked: list[int] = []
        self._passed = 0

    def prepare(self, requests: Sequence[Draw | None]) -> None:
        super().prepare(requests)
        self._marked = [i for i, draw in enumerate(requests) if draw and draw.sampling.seed == MARKED]

    def choose(self, logits: Tensor) -> Tensor:
        for row in self._marked:
            self._passed += 1
            if self._passed > SOUND:
                logits[row, 7] = self.value
        return super().choose(logits)


def spoil(run: Running, value: float) -> None:
    spoiled = Spoiled(512, torch.device("cpu"))
    spoiled.value = value
    run.engine._work = replace(run.engine._work, sampler=spoiled)


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_request_ends_and_its_neighbours_do_not(value: float, temperature: float) -> None:
    with running(loaded_model(), dictionary()) as run:
        expected = [run.call(prompt(n), new=20, temperature=temperature, seed=n) for n in range(4)]
        for call in expected:
            call.finished()
        spoil(run, value)
        marked = run.call(prompt(9), new=20, temperature=temperature, seed=MARKED)
        beside = [run.call(prompt(n), new=20, temperature=temperature, seed=n) for n in range(4)]
        finished = marked.finished()
        for call, other in zip(beside, expected, strict=True):
            assert call.finished().reason is FinishReason.LENGTH
            assert [t.token_id for t in call.tokens] == [t.token_id for t in other.tokens]
        assert run.engine.unscored_passes() == 1
    assert finished.reason is FinishReason.ERROR
    assert isinstance(finished.error, NotComputed)
    assert finished.tokens_generated == SOUND
    assert finished.coverage.complete


def test_likely_and_impossible_tokens_are_no_fault() -> None:
    sampler = Sampler(4, torch.device("cpu"))
    logits = torch.full((2, 9), float("-inf"))
    logits[:, 3] = 1.0
    logits[1, 4] = -1e30
    sampler.prepare([Draw(Sampling()), Draw(Sampling(temperature=1.0))])
    assert sampler.choose(logits).tolist() == [3, 3]
    assert sampler.choice(2).broken() == frozenset()


def test_a_row_without_any_token_is_one() -> None:
    sampler = Sampler(4, torch.device("cpu"))
    sampler.prepare([Draw(Sampling())])
    sampler.choose(torch.full((1, 9), float("-inf")))
    assert sampler.choice(1).broken() == {0}
