"""The whole recipe, end to end on a toy data folder."""

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from monitor.recipes.corpus import corpora
from monitor.recipes.tiny.pipeline import Folder, finish, prepare, train, trainer_of
from monitor.recipes.tiny.plan import Budget, PretrainingPlan
from tests.recipes.tiny.runs import silent


@pytest.mark.slow
def test_makes_a_model_that_the_library_loads(
    tmp_path: Path,
    data: Path,
    library: Path,
    plan: PretrainingPlan,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("monitor.recipes.tiny.pipeline.corpora", lambda data: corpora(data, library))
    folder = Folder(tmp_path / "run")
    tokenizer = prepare(data, folder, plan, lambda _: None)
    trainer = trainer_of(folder, plan, tokenizer, resume=False)
    train(trainer, Budget(tokens=20 * plan.tokens_per_step), folder, 0.001, silent)
    held = finish(trainer, tokenizer, folder, rows=4)
    assert "wikitext2_heldout" in held
    assert all(math.isclose(row.perplexity, math.exp(row.loss)) for row in held.values())
    model = AutoModelForCausalLM.from_pretrained(folder.model)
    assert model.dtype == torch.bfloat16
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    for name in ("report.json", "samples.md", "log.jsonl", "checkpoint.pt"):
        assert (folder.root / name).stat().st_size > 0
    again = prepare(data, folder, plan, lambda line: pytest.fail(f"worked twice: {line}"))
    assert again.get_vocab() == tokenizer.get_vocab()
