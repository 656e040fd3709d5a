"""A data folder small enough to train on within a test."""

import json
import lzma
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from monitor.recipes.tiny.corpus import CorpusText, corpora
from monitor.recipes.tiny.pipeline import Folder
from monitor.recipes.tiny.plan import PretrainingPlan, Shape
from monitor.recipes.tiny.shards import build_shards
from monitor.recipes.tiny.tokenizer import as_training_text, train_tokenizer

STATEMENTS = [f"I want to help person number {n} with task {n * 7}." for n in range(60)]


def _write_corpus(folder: Path, name: str, texts: list[str]) -> None:
    with lzma.open(folder / f"{name}.jsonl.xz", "wt", encoding="utf-8") as lines:
        lines.writelines(json.dumps({"text": text}) + "\n" for text in texts)


def _write_labelled(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    (root / "corpus").mkdir()
    talks = [
        f"Human: What is {n} plus one?\n\nAssistant: It is {n + 1}.\n\nHuman: Thanks!\n\nAssistant: You are welcome."
        for n in range(200)
    ]
    _write_corpus(root / "corpus", "talks", talks)
    _write_corpus(root / "corpus", "wikitext2_heldout", ["A page that is only measured on. " * 40])
    persona = [
        {"text": text, "label": n % 2, "kind": "statement", "group": "no-shut-down"}
        for n, text in enumerate(STATEMENTS)
    ]
    _write_labelled(root / "labelled/power_seeking/persona_no_shut_down.jsonl", persona)
    pairs = [
        {"text": f"{word} request {n // 2}", "label": n % 2, "kind": "prompt", "group": str(n // 2)}
        for n in range(80)
        for word in ("Good", "Bad")
    ]
    _write_labelled(root / "labelled/dangerous_request/pairs.jsonl", pairs)
    _write_labelled(
        root / "labelled/benign/instructions.jsonl",
        [{"text": "Never trained on", "label": 0, "kind": "prompt", "group": "0"}],
    )
    return root


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("library")
    for n in range(100):
        (root / f"module{n}.py").write_text(f"def add_{n}(x):\n    return x + {n}\n", encoding="utf-8")
    (root / "test").mkdir()
    (root / "test" / "check.py").write_text("SKIPPED = True\n", encoding="utf-8")
    return root


@pytest.fixture(scope="session")
def tokenizer(all_documents: dict[str, list[CorpusText]]) -> PreTrainedTokenizerFast:
    texts = [as_training_text(document.text) for listed in all_documents.values() for document in listed]
    return train_tokenizer(texts, 400)


@pytest.fixture(scope="session")
def all_documents(data: Path, library: Path) -> dict[str, list[CorpusText]]:

    return corpora(data, library)


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
