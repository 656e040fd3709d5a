"""The commands that look at features, run as users run them, on a small random pair."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import typer
from typer.testing import CliRunner

from monitor.cli.app import app
from monitor.cli.dictionary.describe import describe
from monitor.dictionary.bundle import load_dictionary
from monitor.model.load.model import load_model
from monitor.model.offline.residuals import Harvester
from tests.cli.small_pair import FEATURES, LAYER, write_small_pair


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + result.stderr + repr(result.exception)
    return result


def described(*arguments):
    alone = typer.Typer()
    alone.command()(describe)
    result = CliRunner().invoke(alone, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output + repr(result.exception)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    return write_small_pair(tmp_path_factory.mktemp("bare"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    made = write_small_pair(tmp_path_factory.mktemp("described"))
    described(*made.options, "--data", made.corpus, "--tokens", "6000", "--length", "64")
    return made


def _activations(pair, text):
    """`[tokens, features]` of one text, BOS dropped, computed on the side."""
    loaded = load_model(pair.model)
    ids = torch.tensor([loaded.tokenizer(text)["input_ids"]])
    x = Harvester(loaded, LAYER).residuals(ids)[0, 1:]
    return load_dictionary(pair.dictionary).autoencoder.encode(x)


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


def test_show_prints_a_card_and_json_agrees(pair):
    record = json.loads(run("features", "show", 5, *pair.dictionary_option, "--json").stdout)
    assert record["feature"] == 5
    assert record["maximum"] == pytest.approx(record["contexts"][0]["peak"], abs=1e-3)
    assert len(record["promoted"]) == len(record["suppressed"]) == len(record["neighbours"]) == 10
    text = run("features", "show", 5, *pair.dictionary_option).stdout
    assert f"feature 5  {record['label']}" in text
    assert "promotes" in text
    assert "neighbours" in text


def test_near_lists_neighbours_of_the_card(pair):
    shown = json.loads(run("features", "show", 7, *pair.dictionary_option, "--json").stdout)["neighbours"]
    near = json.loads(run("features", "near", 7, *pair.dictionary_option, "-k", 10, "--json").stdout)["near"]
    assert [row["feature"] for row in near] == [other for other, _ in shown]
    assert "cosine" in run("features", "near", 7, *pair.dictionary_option).stdout


def test_search_finds_only_what_fires_on_the_texts(pair):
    texts = ["I want more power", "power and money"]
    found = json.loads(run("features", "search", *texts, *pair.options, "--json").stdout)
    assert found["features"]
    first, second = (_activations(pair, text) for text in texts)
    for row in found["features"]:
        fires = [float(a[:, row["feature"]].max()) > 0 for a in (first, second)]
        assert row["fired"] == f"{sum(fires)}/2"
        assert [peak is not None for peak in row["peaks"]] == fires
    assert "fires most on" in run("features", "search", *texts, *pair.options).stdout


def test_contrast_takes_two_files_or_one_with_labels(pair, tmp_path):
    positive, negative, both = tmp_path / "p.txt", tmp_path / "n.jsonl", tmp_path / "both.jsonl"
    wanted = [f"I want more power number {i}" for i in range(12)]
    harmless = [f"the cat sat on mat number {i}" for i in range(12)]
    positive.write_text("\n".join(wanted))
    negative.write_text("\n".join(json.dumps({"text": text}) for text in harmless))
    rows = [{"text": t, "label": 1} for t in wanted] + [{"text": t, "label": 0} for t in harmless]
    both.write_text("\n".join(map(json.dumps, rows)))
    two = json.loads(
        run(
            "features", "contrast", "--positive", positive, "--negative", negative, *pair.options, "--json"
        ).stdout
    )
    one = json.loads(run("features", "contrast", "--labelled", both, *pair.options, "--json").stdout)
    assert two == one
    best = two["features"][0]
    assert best["auroc"] > 0.9
    fires = [float(_activations(pair, text)[:, best["feature"]].max()) > 0 for text in wanted]
    assert best["fires +"] == pytest.approx(sum(fires) / 12, abs=1e-3)
    mean = run("features", "contrast", "--labelled", both, "--pool", "mean", *pair.options).stdout
    assert "mean-pooled" in mean


def test_a_hand_label_shows_and_automatic_labelling_keeps_it(tmp_path):
    own = write_small_pair(tmp_path)
    described(*own.options, "--data", own.corpus, "--tokens", "1000", "--length", "64")
    run("features", "label", 3, "wants power", *own.dictionary_option)
    run("features", "label", "--auto", *own.dictionary_option)
    described(*own.options, "--data", own.corpus, "--tokens", "1000", "--length", "64")
    record = json.loads(run("features", "show", 3, *own.dictionary_option, "--json").stdout)
    assert (record["label"], record["label_by_hand"]) == ("wants power", True)
    run("features", "label", 3, "", *own.dictionary_option)
    record = json.loads(run("features", "show", 3, *own.dictionary_option, "--json").stdout)
    assert record["label_by_hand"] is False
    assert record["label"] != "wants power"


@pytest.mark.slow
def test_map_writes_a_picture(pair, tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "map.png"
    run("features", "map", 5, "--out", out, "--size", 40, *pair.dictionary_option)
    assert out.read_bytes().startswith(b"\x89PNG")
    assert out.stat().st_size > 20_000


def test_what_is_wrong_is_said(pair, bare, tmp_path):
    assert (
        f"features 0 to {FEATURES - 1}"
        in run("features", "show", FEATURES, *pair.dictionary_option, code=2).stderr
    )
    assert "dictionary describe" in run("features", "show", 1, *bare.dictionary_option, code=2).stderr
    assert "dictionary describe" in run("features", "search", "a text", *bare.options, code=2).stderr
    assert "dictionary describe" in run("features", "label", "--auto", *bare.dictionary_option, code=2).stderr
    assert "empty" in run("features", "search", "one", " ", *pair.options, code=2).stderr
    assert "together" in run("features", "search", "one", "--model", pair.model, code=2).stderr
    assert "--auto alone" in run("features", "label", 3, *pair.dictionary_option, code=2).stderr
    assert (
        "ends in"
        in run("features", "map", 3, "--out", tmp_path / "x.jpeg", *pair.dictionary_option, code=2).stderr
    )
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n")
    wrong = run("features", "contrast", "--positive", empty, "--negative", pair.corpus, *pair.options, code=2)
    assert "holds no text" in wrong.stderr
    one = tmp_path / "one.txt"
    one.write_text("alone\n")
    wrong = run("features", "contrast", "--positive", one, "--negative", pair.corpus, *pair.options, code=2)
    assert "two of each side" in wrong.stderr
    assert (
        "no file"
        in run("features", "contrast", "--labelled", tmp_path / "gone.jsonl", *pair.options, code=2).stderr
    )


def test_cards_of_another_dictionary_are_refused(pair, bare):
    for name in ("cards.jsonl.xz",):
        (bare.dictionary / name).write_bytes((pair.dictionary / name).read_bytes())
    config = bare.dictionary / "cfg.json"
    config.write_text(config.read_text().replace("small", "other"))
    assert "another dictionary" in run("features", "show", 1, *bare.dictionary_option, code=2).stderr
    (bare.dictionary / "cards.jsonl.xz").unlink()


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
    described(*options)
    assert load_dictionary(folder).statistics is not None
    assert load_dictionary(folder).digest != before


def test_describe_reads_files_in_equal_shares(tmp_path):
    from monitor.lab.texts import corpus_files, in_equal_shares

    (tmp_path / "long.jsonl").write_text("\n".join(json.dumps({"text": "L" * 100}) for _ in range(50)))
    (tmp_path / "short.txt").write_text("\n".join("s" * 10 for _ in range(300)))
    (tmp_path / "one.md").write_text("m" * 1000)
    first = []
    for text in in_equal_shares(corpus_files([tmp_path]), 100):
        first.append(text)
        if len("".join(first)) > 1500:
            break
    share = {letter: sum(len(text) for text in first if text[0] == letter) for letter in "Lsm"}
    assert share["m"] == 100
    assert abs(share["L"] - share["s"]) <= 100


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.jsonl", "{", "x.jsonl:1: not JSON"),
        ("x.jsonl", '{"words": 1}', "x.jsonl:1: no text"),
        ("x.jsonl", '{"text": "a", "label": 3}', "`label` is 3"),
        ("x.csv", "a", "x.csv:1: no column `text`"),
        ("x.tsv", "a", "neither .txt"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path, name, content, said):
    from monitor.errors import InputError
    from monitor.lab.texts import read_texts

    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=said):
        read_texts(tmp_path / name)
