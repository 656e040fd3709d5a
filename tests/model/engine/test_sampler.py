"""The sampler: temperature, top-k and top-p by their distributions, and greedy rows beside sampled ones."""

import torch

from monitor.model.engine.sampler import Draw, Sampler
from monitor.records import Sampling


class TestSampler:
    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(3)) * 2

    def frequencies(self, draws: int = 4000, **wanted: float) -> torch.Tensor:
        sampler = Sampler(draws, torch.device("cpu"))
        sampler.prepare([Draw(Sampling(seed=number, **wanted)) for number in range(draws)])
        return torch.bincount(sampler.choose(self.logits.expand(draws, -1)), minlength=50) / draws

    def test_temperature_gives_the_softmax(self) -> None:
        wanted = (self.logits[0] / 0.8).softmax(-1)
        assert (self.frequencies(temperature=0.8) - wanted).abs().max() < 0.03

    def test_top_k_keeps_k(self) -> None:
        found = self.frequencies(temperature=1.5, top_k=3)
        assert set(found.nonzero().flatten().tolist()) == set(self.logits[0].topk(3).indices.tolist())

    def test_top_p_keeps_the_smallest_set(self) -> None:
        ordered = self.logits[0].softmax(-1).sort(descending=True)
        size = int((ordered.values.cumsum(-1) < 0.5).sum()) + 1
        found = self.frequencies(temperature=1.0, top_p=0.5)
        assert set(found.nonzero().flatten().tolist()) == set(ordered.indices[:size].tolist())

    def test_greedy_rows_beside_sampled_ones(self) -> None:
        sampler = Sampler(4, torch.device("cpu"))
        sampler.prepare([Draw(Sampling()), Draw(Sampling(temperature=2.0, seed=1)), None])
        chosen = sampler.choose(self.logits.expand(3, -1))
        assert chosen[0] == chosen[2] == self.logits.argmax()
