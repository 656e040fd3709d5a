"""Activations with known features, and trainers on them.

Each activation is a sparse sum of unit directions, some frequent and some rare.
"""

from __future__ import annotations

import dataclasses

import torch

from monitor.dictionary.training.settings import Objective, TrainSettings
from monitor.dictionary.training.trainer import DictionaryTrainer

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


def settings(objective=Objective.BATCHTOPK, steps=300, **changes):
    base = TrainSettings(
        FEATURES, steps * 256, objective, k=4, batch=256, buffer=256, learning_rate=3e-3, sparsity_warm_up=0.2
    )
    return dataclasses.replace(base, **changes)


def trained(world, chosen, steps=None, trainer=None):
    trainer = trainer or DictionaryTrainer(chosen, WIDTH)
    if trainer.step_index == 0:
        trainer.initialise(world.batch(0))
    metrics = None
    last = chosen.steps if steps is None else steps
    while trainer.step_index < last:
        metrics = trainer.step(world.batch(trainer.step_index))
    return trainer, metrics
