"""A training run on a toy model."""

from __future__ import annotations

import torch

from monitor.dictionary.formats import DictionaryCard
from monitor.dictionary.packed_text import PackedText, batches
from monitor.dictionary.training.run import Storage, TrainingInputs, train_dictionary
from monitor.dictionary.training.settings import TrainSettings

VOCABULARY, WIDTH, BOS = 60, 16, 0


class Toy:
    """A model with an embedding and a head; counts its forward passes, and can be made to stop."""

    def __init__(self, stop_after=None):
        random = torch.Generator().manual_seed(3)
        self.embed = torch.randn(VOCABULARY, WIDTH, generator=random)
        self.head = torch.randn(WIDTH, VOCABULARY, generator=random)
        self.calls, self.stop_after = 0, stop_after

    def residuals(self, ids):
        self.calls += 1
        if self.stop_after is not None and self.calls > self.stop_after:
            raise KeyboardInterrupt
        return self.embed[ids] + 0.5 * self.embed[ids].roll(1, dims=1)

    def logits(self, ids, replace):
        x = self.embed[ids]
        return (x if replace is None else replace(x)) @ self.head


def rows(count=3000):
    ids = torch.randint(1, VOCABULARY, (count, 12), generator=torch.Generator().manual_seed(5))
    ids[:, 0] = BOS
    return [PackedText(row, torch.full((12,), number)) for number, row in enumerate(ids)]


class Told:
    """What a run tells of its progress."""

    def __init__(self):
        self.steps, self.tokens_read, self.tokens_measured = [], 0, 0

    def read(self, tokens):
        self.tokens_read += tokens

    def step(self, metrics):
        self.steps.append(metrics)

    def measured(self, tokens):
        self.tokens_measured += tokens


def inputs(model=None, count=3000, exact=None):
    model = model or Toy()
    return TrainingInputs(
        rows=lambda: iter(rows(count)),
        held_out=list(batches(rows()[:64], 32)),
        residuals=model.residuals,
        exact_residuals=(exact or Toy()).residuals,
        logits=model.logits,
        d_model=WIDTH,
        device=torch.device("cpu"),
        card=DictionaryCard("toy", "blocks.1.hook_resid_post", 1, True, 12, "made up"),
    )


SETTINGS = TrainSettings(64, 60 * 128, k=4, batch=128, buffer=1024, learning_rate=3e-3)


def train(folder, model=None, settings=SETTINGS, count=3000, progress=None, exact=None, **storage):
    return train_dictionary(
        settings, inputs(model, count, exact), Storage(folder, **storage), progress or Told()
    )
