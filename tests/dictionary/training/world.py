"""A world with known features: sparse sums of unit directions, some frequent and some rare."""

from __future__ import annotations

import torch

WIDTH, TRUE, FEATURES = 48, 64, 96


class World:
    """Batches by number, the same each time."""

    def __init__(self) -> None:
        random = torch.Generator().manual_seed(1)
        self.directions = torch.nn.functional.normalize(torch.randn(TRUE, WIDTH, generator=random), dim=1)
        self.frequency = torch.linspace(0.1, 0.02, TRUE)
        self.mean = torch.randn(WIDTH, generator=random)

    def batch(self, number: int, tokens: int = 256) -> torch.Tensor:
        random = torch.Generator().manual_seed(100 + number)
        active = torch.rand(tokens, TRUE, generator=random) < self.frequency
        strength = 2 + 2 * torch.rand(tokens, TRUE, generator=random)
        noise = 0.02 * torch.randn(tokens, WIDTH, generator=random)
        return (active * strength) @ self.directions + self.mean + noise
