"""A data folder small enough for tests of recipes."""

import json
import lzma
from pathlib import Path

import pytest

from monitor.recipes.corpus import CorpusText, corpora

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
def all_documents(data: Path, library: Path) -> dict[str, list[CorpusText]]:
    return corpora(data, library)
