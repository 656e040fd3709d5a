"""The training loop: it learns, goes on from checkpoints bit by bit, and stops where the loss is no number."""

import math

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from monitor.recipes.tiny.pipeline import Folder, trainer_of
from monitor.recipes.tiny.plan import Budget, PretrainingPlan
from monitor.recipes.tiny.sampler import RowSampler
from monitor.recipes.tiny.shards import open_shards
from monitor.recipes.tiny.trainer import Pretrainer
from tests.recipes.tiny.runs import silent


def test_learns(folder: Folder, plan: PretrainingPlan, tokenizer: PreTrainedTokenizerFast) -> None:
    trainer = trainer_of(folder, plan, tokenizer, resume=False)
    losses: list[float] = []
    trainer.run(Budget(tokens=20 * plan.tokens_per_step), lambda run, _: losses.append(run.counters.loss))
    assert len(losses) == 20
    assert sum(losses[-3:]) / 3 < sum(losses[:3]) / 3 - 1


def test_resumed_is_what_unbroken_would_have_been(
    folder: Folder, plan: PretrainingPlan, tokenizer: PreTrainedTokenizerFast
) -> None:
    budget = Budget(tokens=8 * plan.tokens_per_step)
    whole = trainer_of(folder, plan, tokenizer, resume=False)
    saved_at = 4

    def save_halfway(run: Pretrainer, _: float) -> None:
        if run.counters.steps == saved_at:
            run.save(folder.checkpoint)

    whole.run(budget, save_halfway)
    resumed = trainer_of(folder, plan, tokenizer, resume=True)
    assert resumed.counters.steps == saved_at
    resumed.run(budget, silent)
    assert resumed.counters.steps == whole.counters.steps
    for name, weight in whole.weights.items():
        assert torch.equal(weight, resumed.weights[name]), name


def test_stops_when_the_loss_is_no_number(
    folder: Folder, plan: PretrainingPlan, tokenizer: PreTrainedTokenizerFast
) -> None:
    trainer = trainer_of(folder, plan, tokenizer, resume=False)
    with torch.no_grad():
        trainer.weights["model.norm.weight"].fill_(math.nan)
    with pytest.raises(FloatingPointError, match="resume from the last checkpoint"):
        trainer.run(Budget(tokens=10**6), silent)


def test_checkpoint_of_other_corpora_is_refused(
    folder: Folder, plan: PretrainingPlan, tokenizer: PreTrainedTokenizerFast
) -> None:
    trainer = trainer_of(folder, plan, tokenizer, resume=False)
    trainer.save(folder.checkpoint)
    shards = open_shards(folder.cache, "train")
    del shards["python"]
    other = Pretrainer(plan, trainer.model.config, RowSampler(shards, plan.seed))
    with pytest.raises(ValueError, match="other corpora"):
        other.restore(folder.checkpoint)
