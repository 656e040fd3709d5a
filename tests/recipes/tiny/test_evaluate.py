"""An exported model measured."""

import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from monitor.recipes.tiny.evaluate import OPENINGS, PROGRAMS, QUESTIONS, held_out_losses, samples
from monitor.recipes.tiny.pipeline import Folder, export_model, trainer_of
from monitor.recipes.tiny.plan import PretrainingPlan
from monitor.recipes.tiny.shards import open_shards


def test_measured_loss_is_that_of_the_exported_weights(
    folder: Folder, plan: PretrainingPlan, tokenizer: PreTrainedTokenizerFast
) -> None:
    trainer = trainer_of(folder, plan, tokenizer, resume=False)
    export_model(trainer.model, tokenizer, folder.model)
    held = open_shards(folder.cache, "heldout")["wikitext2_heldout"]
    found = held_out_losses(folder.model, {"wiki": held}, rows=2)["wiki"]
    model = AutoModelForCausalLM.from_pretrained(folder.model, dtype=torch.float64)
    ids = torch.from_numpy(np.asarray(held[:2]).astype(np.int64))
    logs = model(ids[:, :-1]).logits.log_softmax(-1)
    losses = -logs.gather(-1, ids[:, 1:, None])[..., 0]
    expected = float(losses[ids[:, 1:] != tokenizer.bos_token_id].mean().detach())
    assert found.loss == pytest.approx(expected, abs=1e-5)


def test_bits_per_byte_count_the_text_and_beginnings_are_no_prediction(
    folder: Folder, plan: PretrainingPlan, tokenizer: PreTrainedTokenizerFast
) -> None:
    trainer = trainer_of(folder, plan, tokenizer, resume=False)
    export_model(trainer.model, tokenizer, folder.model)
    ids = tokenizer("a calm day and a long night").input_ids
    row = np.array([[*ids, *ids]], np.uint16)
    found = held_out_losses(folder.model, {"one": row})["one"]
    assert found.tokens == 2 * len(ids) - 2, "neither the first token nor the second beginning is predicted"
    size = 2 * len("a calm day and a long night")
    assert found.bits_per_byte == pytest.approx(found.loss * found.tokens / math.log(2) / size)
    assert found.as_dict()["perplexity"] == pytest.approx(math.exp(found.loss))


def test_samples_begin_with_their_prompts_and_come_out_the_same(
    folder: Folder, plan: PretrainingPlan, tokenizer: PreTrainedTokenizerFast
) -> None:
    trainer = trainer_of(folder, plan, tokenizer, resume=False)
    export_model(trainer.model, tokenizer, folder.model)
    page = samples(folder.model, seed=3, length=2)
    assert page.count("```text\n") == len(QUESTIONS) + len(OPENINGS) + len(PROGRAMS)
    assert f"```text\nHuman: {QUESTIONS[0]}\n\nAssistant:" in page
    assert f"```text\n{OPENINGS[0]}" in page
    assert samples(folder.model, seed=3, length=2) == page
