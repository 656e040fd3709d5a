"""The whole recipe in order: tokenizer, token rows, training, export, report."""

import copy
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from monitor.recipes.corpus import CorpusText, corpora
from monitor.recipes.tiny.evaluate import Held, held_out_losses, samples
from monitor.recipes.tiny.plan import Budget, PretrainingPlan
from monitor.recipes.tiny.sampler import RowSampler
from monitor.recipes.tiny.shards import Tell, build_shards, have_shards, open_shards
from monitor.recipes.tiny.tokenizer import as_training_text, load_tokenizer, train_tokenizer
from monitor.recipes.tiny.trainer import Pretrainer, Progress

_TOKENIZER_SHARE = 2_500_000
"""Characters of each corpus from which the vocabulary is learned."""


@dataclass(frozen=True, slots=True)
class Folder:
    """Where everything of a run lies."""

    root: Path

    @property
    def tokenizer(self) -> Path:
        """The tokenizer."""
        return self.root / "tokenizer"

    @property
    def cache(self) -> Path:
        """Packed token rows."""
        return self.root / "cache"

    @property
    def checkpoint(self) -> Path:
        """The newest state of the training."""
        return self.root / "checkpoint.pt"

    @property
    def log(self) -> Path:
        """One JSON object per reported step."""
        return self.root / "log.jsonl"

    @property
    def model(self) -> Path:
        """The export."""
        return self.root / "model"


def prepare(data: Path, folder: Folder, plan: PretrainingPlan, report: Tell) -> PreTrainedTokenizerFast:
    """Learns the tokenizer and packs the corpora, unless the folder holds both from an earlier stretch."""
    if have_shards(folder.cache):
        return load_tokenizer(folder.tokenizer)
    documents = corpora(data)
    report("learning the tokenizer")
    train_tokenizer(_vocabulary_texts(documents), plan.shape.vocabulary).save_pretrained(folder.tokenizer)
    tokenizer = load_tokenizer(folder.tokenizer)
    report(_unmatched(set(documents), set(plan.mixture(0.0))))
    build_shards(folder.cache, documents, tokenizer, plan.shape.context + 1, plan.seed, report)
    return tokenizer


def _unmatched(found: set[str], mixed: set[str]) -> str:
    """Says which corpora the run will not read, so that a misnamed file does not vanish silently."""
    unread = ", ".join(sorted(found - mixed)) or "none"
    missing = ", ".join(sorted(mixed - found)) or "none"
    return f"corpora only measured on: {unread}; in the mixture but not at hand: {missing}"


def _vocabulary_texts(documents: dict[str, list[CorpusText]]) -> Iterator[str]:
    for listed in documents.values():
        left = _TOKENIZER_SHARE
        for document in listed:
            if document.split == "train" and left > 0:
                text = as_training_text(document.text)[:left]
                left -= len(text)
                yield text


def trainer_of(
    folder: Folder, plan: PretrainingPlan, tokenizer: PreTrainedTokenizerFast, resume: bool, workers: int = 0
) -> Pretrainer:
    """A trainer at the start of a run, or where its checkpoint left it."""
    config = plan.shape.config(
        int(tokenizer.bos_token_id), int(tokenizer.eos_token_id), int(tokenizer.pad_token_id)
    )
    trainer = Pretrainer(plan, config, RowSampler(open_shards(folder.cache, "train"), plan.seed), workers)
    if resume:
        trainer.restore(folder.checkpoint)
    return trainer


def train(trainer: Pretrainer, budget: Budget, folder: Folder, every: float, tell: Progress) -> None:
    """Runs to the end of the budget, with a checkpoint every `every` seconds and one at the end."""
    saved = time.monotonic()

    def after_step(run: Pretrainer, progress: float) -> None:
        nonlocal saved
        tell(run, progress)
        if run.counters.steps % 20 == 0:
            _log(folder.log, run, progress)
        if time.monotonic() - saved > every:
            run.save(folder.checkpoint)
            saved = time.monotonic()

    trainer.run(budget, after_step)
    trainer.save(folder.checkpoint)


def _log(path: Path, run: Pretrainer, progress: float) -> None:
    counters = run.counters
    line = {
        "step": counters.steps,
        "tokens": counters.tokens,
        "seconds": round(counters.seconds, 1),
        "loss": round(counters.loss, 4),
        "rate": round(run.plan.rate(progress), 4),
    }
    with path.open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")


def export_model(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Saves a bf16 copy of the model, its generation settings and its tokenizer into `folder`."""
    narrow = copy.deepcopy(model).to(torch.bfloat16).eval()
    narrow.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    folder.mkdir(parents=True, exist_ok=True)
    narrow.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def finish(
    trainer: Pretrainer, tokenizer: PreTrainedTokenizerFast, folder: Folder, rows: int
) -> dict[str, Held]:
    """Exports the model, then measures the export and writes `report.json` and `samples.md`."""
    export_model(trainer.model, tokenizer, folder.model)
    held = held_out_losses(folder.model, open_shards(folder.cache, "heldout"), rows)
    facts = {
        "parameters": sum(weight.numel() for weight in trainer.weights.values()),
        "steps": trainer.counters.steps,
        "tokens": trainer.counters.tokens,
        "training_seconds": round(trainer.counters.seconds),
        "epochs": {name: round(count, 2) for name, count in trainer.sampler.epochs().items()},
        "held_out": {name: measured.as_dict() for name, measured in held.items()},
    }
    (folder.root / "report.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (folder.root / "samples.md").write_text(samples(folder.model), encoding="utf-8")
    return held
