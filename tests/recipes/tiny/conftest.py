"""What a test of the bundled model's recipe starts from."""

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from monitor.recipes.corpus import CorpusText
from monitor.recipes.tiny.pipeline import Folder
from monitor.recipes.tiny.plan import PretrainingPlan, Shape
from monitor.recipes.tiny.shards import build_shards
from monitor.recipes.tiny.tokenizer import as_training_text, train_tokenizer


@pytest.fixture(scope="session")
def tokenizer(all_documents: dict[str, list[CorpusText]]) -> PreTrainedTokenizerFast:
    texts = [as_training_text(document.text) for listed in all_documents.values() for document in listed]
    return train_tokenizer(texts, 400)


@pytest.fixture
def plan() -> PretrainingPlan:
    shape = Shape(vocabulary=400, width=32, layers=2, heads=2, inner=64, context=32)
    mixture = {"talks": 0.5, "python": 0.3, "labelled/statements": 0.2}
    return PretrainingPlan(
        shape=shape,
        rows=4,
        piece=2,
        muon_rate=0.02,
        adam_rate=0.01,
        compiled=False,
        start=mixture,
        end=mixture,
    )


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
