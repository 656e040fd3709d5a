"""The choice of tokens against the distributions that temperature, top-k and top-p stand for."""

import numpy as np
import pytest
import torch

from monitor.model.engine.sampler import Draw, Sampler
from monitor.records import Sampling

CPU = torch.device("cpu")
SETTINGS = [
    Sampling(temperature=0.7),
    Sampling(temperature=1.0, top_k=1),
    Sampling(temperature=1.3, top_k=5),
    Sampling(temperature=0.7, top_k=200),
    Sampling(temperature=1.0, top_p=0.5),
    Sampling(temperature=2.0, top_p=0.9),
    Sampling(temperature=1.0, top_p=1e-6),
    Sampling(temperature=1.0, top_k=30, top_p=0.8),
]


class At(Draw):
    """Draws at a number that is given."""

    def __init__(self, sampling: Sampling, uniform: float) -> None:
        super().__init__(sampling)
        self._at = uniform

    def uniform(self) -> float:
        return self._at


def probabilities(logits: np.ndarray, sampling: Sampling) -> np.ndarray:
    """By the definitions, in float64."""
    scaled = logits.astype(np.float64) / sampling.temperature
    weights = np.exp(scaled - scaled.max())
    weights /= weights.sum()
    order = np.argsort(-weights, kind="stable")
    before = np.cumsum(weights[order]) - weights[order]
    kept = before < sampling.top_p if sampling.top_p < 1 else np.ones(len(order), bool)
    kept[0] = True
    if sampling.top_k:
        kept[sampling.top_k :] = False
    out = np.zeros_like(weights)
    out[order[kept]] = weights[order[kept]]
    return out / out.sum()


def logits(vocabulary: int, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(vocabulary, generator=torch.Generator().manual_seed(seed))


def chosen(sampler: Sampler, draws: list[Draw], rows: torch.Tensor) -> list[int]:
    sampler.prepare(draws)
    return sampler.choose(rows).tolist()


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("sampling", SETTINGS)
@pytest.mark.parametrize("vocabulary", [7, 256, 1000])
def test_every_token_has_its_share_of_all_numbers(sampling: Sampling, vocabulary: int, static: bool) -> None:
    count, one = 1200, logits(vocabulary)
    draws: list[Draw] = [At(sampling, (i + 0.5) / count) for i in range(count)]
    found = chosen(Sampler(count, CPU, static=static), draws, one.expand(count, -1).contiguous())
    shares = np.bincount(found, minlength=vocabulary) / count
    np.testing.assert_allclose(shares, probabilities(one.numpy(), sampling), atol=2 / count)


@pytest.mark.slow
def test_numbers_of_a_seed_are_spread_as_they_should_be() -> None:
    sampling, one, count = Sampling(temperature=0.9, top_p=0.9, seed=5), logits(50, seed=3), 8000
    draw, sampler, found = Draw(sampling), Sampler(1, CPU), []
    for _ in range(count):
        found += chosen(sampler, [draw], one[None])
        draw.taken()
    wanted = probabilities(one.numpy(), sampling) * count
    likely = wanted > 5
    seen = np.bincount(found, minlength=50)
    assert seen[wanted == 0].sum() == 0
    deviation = ((seen[likely] - wanted[likely]) ** 2 / wanted[likely]).sum()
    # The chi-square distribution exceeds this with probability of about one in a thousand.
    degrees = int(likely.sum()) - 1
    assert deviation < degrees + 3.1 * (2 * degrees) ** 0.5 + 4


@pytest.mark.parametrize("sampling", SETTINGS)
def test_a_row_does_not_depend_on_its_neighbours(sampling: Sampling) -> None:
    # Many tokens are equally likely, as they are of a model in bfloat16.
    rows = torch.stack([logits(2000, seed).bfloat16().float() for seed in range(12)])
    numbers = np.random.default_rng(1).random(12).tolist()
    alone = [chosen(Sampler(1, CPU), [At(sampling, u)], rows[i : i + 1])[0] for i, u in enumerate(numbers)]
    others = [Sampling(temperature=5.0, top_p=0.999), Sampling(), Sampling(temperature=0.3, top_k=700)]
    draws: list[Draw] = []
    for i, u in enumerate(numbers):
        draws += [At(others[i % 3], 0.7), At(sampling, u)]
    beside = chosen(Sampler(24, CPU), draws, rows.repeat_interleave(2, dim=0))
    assert beside[1::2] == alone


def test_greedy_rows_take_the_first_of_the_likeliest() -> None:
    rows = torch.tensor([[1.0, 3.0, 3.0], [5.0, 0.0, 5.0], [0.0, 0.0, 1.0]])
    drawn = [Draw(Sampling()), Draw(Sampling(temperature=1.0, top_k=1)), None]
    assert chosen(Sampler(3, CPU), drawn, rows) == [1, 0, 2]
    assert chosen(Sampler(3, CPU, static=True), [Draw(Sampling())] * 3, rows) == [1, 0, 2]


def test_a_number_stays_until_its_token_is_taken() -> None:
    draw, other = Draw(Sampling(temperature=1.0, seed=3)), Draw(Sampling(temperature=1.0, seed=3))
    first = draw.uniform()
    assert draw.uniform() == first == other.uniform()
    draw.taken()
    assert draw.uniform() != first


def test_tokens_that_are_drawn_ahead_have_the_numbers_that_they_would_have_had() -> None:
    draw, other = (Draw(Sampling(temperature=1.0, seed=3)) for _ in range(2))
    wanted = []
    for _ in range(4):
        wanted.append(other.uniform())
        other.taken()
    found = []
    for _ in range(3):  # three passes are on their way at once
        found.append(draw.uniform())
        draw.awaited()
    assert found == wanted[:3]
    draw.arrived()
    draw.taken()
    for _ in range(2):  # the others will not be looked at
        draw.arrived()
    assert draw.uniform() == wanted[1]
    draw.taken()
    assert [draw.uniform(), draw.uniform()] == [wanted[2]] * 2
    draw.arrived()
    draw.taken()
    assert draw.uniform() == wanted[3]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_choice_says_whether_all_logits_were_numbers(value: float) -> None:
    sampler = Sampler(4, torch.device("cpu"))
    sampler.prepare([Draw(Sampling())])
    logits = torch.zeros(3, 9)
    sampler.choose(logits)
    assert sampler.finite()
    logits[2, 4] = value
    sampler.choose(logits)
    assert not sampler.finite(), "rows that draw nothing are looked at as well"
    sampler.choose(logits[:2])
    assert sampler.finite()


def test_a_second_choice_is_the_first_one() -> None:
    sampler = Sampler(4, torch.device("cpu"))
    draws = [Draw(Sampling(temperature=1.0, seed=seed, top_k=5 * seed)) for seed in range(4)]
    logits = torch.randn(4, 300, generator=torch.Generator().manual_seed(1))
    sampler.prepare(draws)
    first = sampler.choose(torch.full_like(logits, float("nan")))
    assert len(first) == 4
    second, third = sampler.choose(logits.clone()), sampler.choose(logits.clone())
    assert second.tolist() == third.tolist()
