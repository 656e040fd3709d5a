"""Gradients of a batch, in pieces and by workers."""

import multiprocessing
from dataclasses import replace

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from monitor.recipes.tiny.gradients import LocalGradients
from monitor.recipes.tiny.pipeline import Folder, trainer_of
from monitor.recipes.tiny.plan import Budget, PretrainingPlan
from tests.recipes.tiny.runs import silent


@pytest.mark.slow
def test_workers_find_the_same_gradients_and_a_dead_one_ends_the_run(
    folder: Folder, plan: PretrainingPlan, tokenizer: PreTrainedTokenizerFast
) -> None:
    alone, shared = (trainer_of(folder, plan, tokenizer, resume=False, workers=n) for n in (0, 2))
    try:
        for run in (alone, shared):
            run.run(Budget(tokens=3 * plan.tokens_per_step), silent)
        assert shared.counters.loss == pytest.approx(alone.counters.loss, abs=1e-3)
        for name, weight in alone.weights.items():
            torch.testing.assert_close(shared.weights[name], weight, atol=5e-3, rtol=0, msg=name)
    finally:
        for child in multiprocessing.active_children():
            child.kill()
    with pytest.raises((EOFError, OSError)):
        shared.step(0.5)


def test_pieces_of_a_batch_add_up_to_its_gradient(plan: PretrainingPlan) -> None:
    config = plan.shape.config(1, 2, 0)
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    weights = dict(model.named_parameters())
    batch = torch.randint(0, 400, (5, plan.shape.context + 1))
    found = {}
    for piece in (5, 2):
        model.zero_grad()
        loss = LocalGradients(replace(plan, piece=piece), config, weights)(batch)
        found[piece] = loss, {name: weight.grad.clone() for name, weight in weights.items()}
    assert found[2][0] == pytest.approx(found[5][0], abs=1e-3)
    for name, gradient in found[5][1].items():
        distance = (found[2][1][name] - gradient).norm() / gradient.norm()
        assert float(distance) < 0.02, name
