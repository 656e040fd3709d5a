"""The probe of each layer: what it can know, it finds; what nothing tells apart stays at chance."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from monitor.dictionary.residual_signals import norm_limit, sinks
from monitor.lab.texts import LabelledText
from monitor.model.load.model import LoadedModel, load_model
from monitor.model.offline.residuals import Harvester
from monitor.model.prompts import DocumentReader
from monitor.recipes.smollm2.concepts import _means, _placed, as_table, auroc_by_layer, labelled_sets
from tests.recipes.smollm2.small import write_chat_model


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(write_chat_model(tmp_path_factory.mktemp("model")), device="cpu")


def write(data: Path, name: str, rows: list[tuple[str, int]]) -> None:
    path = data / "labelled" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"text": text, "label": label, "kind": "statement", "group": f"g{number // 2}"})
        for number, (text, label) in enumerate(rows)
    ]
    path.write_text("\n".join(lines), "utf-8")


def test_a_probe_finds_what_is_there_and_no_more(loaded: LoadedModel, tmp_path: Path) -> None:
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefgh", k=30)) for _ in range(120)]
    write(
        tmp_path,
        "c/letters.jsonl",
        [(f"{word}{'z' * 9 if n % 2 else ''}", n % 2) for n, word in enumerate(words)],
    )
    write(tmp_path, "c/nothing.jsonl", [(word, n % 2) for n, word in enumerate(words)])
    write(tmp_path, "c/one_label.jsonl", [(word, 1) for word in words])
    write(tmp_path, "c/few.jsonl", [(word, n % 2) for n, word in enumerate(words[:6])])
    sets = labelled_sets(tmp_path, 100)
    assert [(part.name, len(part.rows)) for part in sets] == [("c/letters", 100), ("c/nothing", 100)]
    found = auroc_by_layer(loaded, (0, 2), sets)
    assert min(found["c/letters"].values()) > 0.9
    assert 0.2 < min(found["c/nothing"].values()) <= max(found["c/nothing"].values()) < 0.8
    lines = as_table(found).splitlines()
    assert lines[0] == "| labelled set | layer 0 | layer 2 |"
    assert lines[-1].startswith("| mean | ")


@torch.no_grad()
def test_means_are_those_of_each_text_alone(loaded: LoadedModel) -> None:
    texts = [
        "short",
        "a text that is a good deal longer than the other one",
        "Human: hello\n\nAssistant: hello you",
    ]
    rows = [LabelledText(text) for text in texts]
    together = _means(loaded, (0, 2), rows)
    for number, row in enumerate(rows):
        ids = torch.tensor(DocumentReader(loaded)([_placed(row.text)]))
        for layer, means in zip((0, 2), together, strict=True):
            with torch.autocast("cpu", torch.bfloat16):
                x = Harvester(loaded, layer).residuals(ids)
            at = torch.arange(x.shape[1])[None]
            kept = x[~sinks(x, at, norm_limit(x, at))]
            np.testing.assert_allclose(means[number], kept.mean(0).numpy(), rtol=0.02, atol=0.02)
