"""The numbers of a run: schedule, mixture, budget."""

from dataclasses import replace

import pytest
from transformers import PreTrainedTokenizerFast

from monitor.recipes.tiny.plan import Budget, PretrainingPlan, Shape
from monitor.recipes.tiny.tokenizer import encode_documents


def test_context_is_part_of_the_plan(plan: PretrainingPlan, tokenizer: PreTrainedTokenizerFast) -> None:
    assert replace(plan, rows=6).tokens_per_step == 6 * plan.shape.context
    ids = encode_documents(tokenizer, ["Human: a\n\nAssistant: b"])[0]
    assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)


def test_schedule_ends_with_the_minutes_whatever_the_speed(plan: PretrainingPlan) -> None:
    budget = Budget(minutes=10)
    assert budget.progress(300, 5) == budget.progress(300, 5_000_000) == 0.5
    assert plan.rate(1.0) == plan.final_rate
    assert plan.rate(plan.decay_from) == 1.0
    with pytest.raises(ValueError, match="exactly one"):
        Budget(minutes=1, tokens=1)


@pytest.mark.parametrize(
    ("progress", "rate"),
    [(0.0, 0.02), (0.005, 0.5), (0.01, 1.0), (0.45, 1.0), (0.725, 0.5), (0.9999, 0.01), (1.0, 0.01)],
)
def test_the_rate_warms_up_stays_and_decays(progress: float, rate: float) -> None:
    assert PretrainingPlan().rate(progress) == pytest.approx(rate)


def test_the_mixture_turns_from_one_to_the_other() -> None:
    plan = PretrainingPlan(start={"a": 1.0, "b": 0.5}, end={"b": 1.0, "c": 0.25}, mix_from=0.5, mix_to=0.75)
    assert plan.mixture(0.0) == plan.mixture(0.5) == {"a": 1.0, "b": 0.5, "c": 0.0}
    assert plan.mixture(0.625) == {"a": 0.5, "b": 0.75, "c": 0.125}
    assert plan.mixture(0.75) == plan.mixture(2.0) == {"a": 0.0, "b": 1.0, "c": 0.25}


@pytest.mark.parametrize("wrong", [{}, {"minutes": 0}, {"tokens": -1}, {"minutes": 1, "tokens": 1}])
def test_budgets_that_are_none(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"give exactly one of the two|above zero"):
        Budget(**wrong)
    assert Budget(tokens=200).progress(1e9, 50) == 0.25


def test_the_shape_is_that_of_the_library() -> None:
    config = Shape(vocabulary=400, width=32, layers=2, heads=2, inner=64, context=16).config(5, 6, 7)
    assert (config.hidden_size, config.num_hidden_layers, config.head_dim) == (32, 2, 16)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (5, 6, 7)
    assert config.tie_word_embeddings
