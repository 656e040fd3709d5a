"""The recipe's training and the whole recipe, end to end on a toy data folder."""

import math
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from monitor.recipes.tiny.corpus import CorpusText, corpora
from monitor.recipes.tiny.evaluate import held_out_losses
from monitor.recipes.tiny.pipeline import Folder, export_model, finish, prepare, train, trainer_of
from monitor.recipes.tiny.plan import Budget, PretrainingPlan
from monitor.recipes.tiny.sampler import RowSampler
from monitor.recipes.tiny.shards import build_shards, open_shards
from monitor.recipes.tiny.trainer import Pretrainer


@pytest.fixture
def folder(
    tmp_path: Path,
    all_documents: dict[str, list[CorpusText]],
    tokenizer: PreTrainedTokenizerFast,
    plan: PretrainingPlan,
) -> Folder:
    made = Folder(tmp_path / "run")
    build_shards(made.cache, all_documents, tokenizer, plan.shape.context + 1, 0, lambda _: None)
    tokenizer.save_pretrained(made.tokenizer)
    return made


def silent(_: Pretrainer, __: float) -> None:
    return None


class TestTraining:
    def test_learns(self, folder: Folder, plan: PretrainingPlan, tokenizer: PreTrainedTokenizerFast) -> None:
        trainer = trainer_of(folder, plan, tokenizer, resume=False)
        losses: list[float] = []
        trainer.run(Budget(tokens=20 * plan.tokens_per_step), lambda run, _: losses.append(run.counters.loss))
        assert len(losses) == 20
        assert sum(losses[-3:]) / 3 < sum(losses[:3]) / 3 - 1

    def test_resumed_is_what_unbroken_would_have_been(
        self, folder: Folder, plan: PretrainingPlan, tokenizer: PreTrainedTokenizerFast
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

    @pytest.mark.slow
    def test_workers_find_the_same_gradients_and_a_dead_one_ends_the_run(
        self, folder: Folder, plan: PretrainingPlan, tokenizer: PreTrainedTokenizerFast
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

    def test_stops_when_the_loss_is_no_number(
        self, folder: Folder, plan: PretrainingPlan, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        trainer = trainer_of(folder, plan, tokenizer, resume=False)
        with torch.no_grad():
            trainer.weights["model.norm.weight"].fill_(math.nan)
        with pytest.raises(FloatingPointError, match="resume from the last checkpoint"):
            trainer.run(Budget(tokens=10**6), silent)

    def test_checkpoint_of_other_corpora_is_refused(
        self, folder: Folder, plan: PretrainingPlan, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        trainer = trainer_of(folder, plan, tokenizer, resume=False)
        trainer.save(folder.checkpoint)
        shards = open_shards(folder.cache, "train")
        del shards["python"]
        other = Pretrainer(plan, trainer.model.config, RowSampler(shards, plan.seed))
        with pytest.raises(ValueError, match="other corpora"):
            other.restore(folder.checkpoint)

    def test_schedule_ends_with_the_minutes_whatever_the_speed(self, plan: PretrainingPlan) -> None:
        budget = Budget(minutes=10)
        assert budget.progress(300, 5) == budget.progress(300, 5_000_000) == 0.5
        assert plan.rate(1.0) == plan.final_rate
        assert plan.rate(plan.decay_from) == 1.0
        with pytest.raises(ValueError, match="exactly one"):
            Budget(minutes=1, tokens=1)


class TestWhole:
    @pytest.mark.slow
    def test_makes_a_model_that_the_library_loads(
        self,
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

    def test_measured_loss_is_that_of_the_exported_weights(
        self, folder: Folder, plan: PretrainingPlan, tokenizer: PreTrainedTokenizerFast
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
