"""`dictionary describe`: what it measures, and what it does not write over."""

from __future__ import annotations

import json
import shutil

import torch

from monitor.dictionary.bundle import load_dictionary
from monitor.model.load.model import load_model
from monitor.model.offline.residuals import Harvester
from tests.cli.features.described import described, run
from tests.cli.small_pair import FEATURES, LAYER, write_small_pair


def test_describe_measures_what_a_plain_pass_measures(pair):
    statistics = load_dictionary(pair.dictionary).statistics
    assert statistics is not None
    assert statistics.corpus == "corpus.txt"
    assert statistics.tokens > 5000
    loaded, sae = load_model(pair.model), load_dictionary(pair.dictionary).autoencoder
    maximum, active, tokens = torch.zeros(FEATURES), torch.zeros(FEATURES), 0
    text = pair.corpus.read_text()
    assert len(text) < 20_000  # one piece, so one document
    characters = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    for at in range(0, -(-6000 // 64) * 63, 63):
        ids = [0, *characters[at : at + 63]]
        if len(ids) == 64:
            a = sae.encode(Harvester(loaded, LAYER).residuals(torch.tensor([ids])))[0, 1:]
            maximum, active, tokens = torch.maximum(maximum, a.amax(0)), active + (a > 0).sum(0), tokens + 63
    assert statistics.tokens == tokens
    assert torch.allclose(statistics.maximum, maximum, atol=1e-5)
    assert torch.allclose(statistics.density, active / tokens, atol=1e-4)


def test_a_dictionary_that_was_trained_again_is_described_again(bare, tmp_path):
    folder = tmp_path / "again"
    shutil.copytree(bare.dictionary, folder)
    options = ["--model", bare.model, "--dictionary", folder, "--data", bare.corpus, "--tokens", 2000]
    described(*options)
    config = folder / "cfg.json"
    before = load_dictionary(folder).digest
    config.write_text(config.read_text().replace("small", "third").replace("other", "third"))
    refused = run("dictionary", "describe", *options, code=2).stderr  # and before anything is read or written
    assert "another dictionary" in refused
    assert "labels.json" in refused
    (folder / "labels.json").unlink()
    (folder / "firings.jsonl.xz").write_bytes(b"of another dictionary, and written over")
    described(*options)
    assert load_dictionary(folder).statistics is not None
    assert load_dictionary(folder).digest != before


def test_what_is_written_and_what_is_said_of_it(tmp_path):
    own = write_small_pair(tmp_path)
    done = run(
        "dictionary",
        "describe",
        *own.options,
        "--data",
        own.corpus,
        "--tokens",
        1000,
        "--contexts",
        2,
        "--corpus",
        "mine",
    )
    folder = own.dictionary
    for name in ("statistics.safetensors", "firings.jsonl.xz", "cards.jsonl.xz", "labels.json"):
        assert f"{folder / name}  0." in done.stdout
    statistics = load_dictionary(folder).statistics
    assert f"{statistics.tokens:,} tokens in " in done.stdout
    dead = int((statistics.maximum == 0).sum())
    assert f"never active {dead} of {FEATURES}" in done.stdout
    assert statistics.corpus == "mine"
    assert "labels: none could be tried" in done.stdout  # the corpus is one document
    record = json.loads(run("features", "show", 1, "--json", *own.dictionary_option).stdout)
    assert len(record["contexts"]) <= 2
