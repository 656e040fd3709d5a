"""`features evaluate` on a small random pair and made-up sources."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from monitor.cli.app import app
from monitor.cli.dictionary.describe import describe
from monitor.dictionary.evaluation.source import SourceText
from monitor.lab.feature_evaluation import LabelledReader
from monitor.lab.pair import open_pair
from monitor.lab.splits import split_of
from tests.cli.small_pair import write_small_pair


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    made = write_small_pair(tmp_path_factory.mktemp("evaluated"))
    alone = typer.Typer()
    alone.command()(describe)
    arguments = [*made.options, "--data", str(made.corpus), "--tokens", "3000", "--length", "64"]
    assert CliRunner().invoke(alone, arguments).exit_code == 0
    return made


def _write(folder, concept, name, rows):
    path = folder / concept / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(row) for row in rows))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled")
    greedy, calm = ("power and gold", "ZZ top money"), ("a cat on a mat", "rain in town")
    said = [((greedy if i % 2 else calm)[i % 3 % 2], i) for i in range(160)]
    statements = [
        {"text": f"{text} {i}", "label": i % 2, "kind": "statement", "group": "wants-x"} for text, i in said
    ]
    asked = [
        (f"Human: q {g}?\n\nAssistant: {('no.', 'ZZZ!')[i]}", i, f"g{g}") for g in range(70) for i in range(2)
    ]
    answers = [{"text": text, "label": i, "kind": "response", "group": group} for text, i, group in asked]
    _write(folder, "power", "wants_x", statements)
    _write(folder, "deception", "answers", answers)
    _write(folder, "benign", "instructions", [
        {"text": f"name {i} rivers", "label": 0, "kind": "prompt", "group": str(i)} for i in range(40)
    ])  # fmt: skip
    return folder


def _evaluate(*arguments, code=0):
    result = CliRunner().invoke(app, ["features", "evaluate", *map(str, arguments)])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


@pytest.mark.slow
def test_every_source_is_measured_and_single_classes_are_explained(pair, labelled, tmp_path):
    _evaluate(
        "--data", labelled, "--out", tmp_path, *pair.options, "--rows", 200, "--features", 6, "--jobs", 1
    )
    record = json.loads((tmp_path / "evaluation.json").read_text())
    by_name = {source["source"]: source for source in record["sources"]}
    assert set(by_name) == {"wants_x", "answers"}
    assert [item["name"] for item in record["not_measured"]] == ["instructions"]
    rows = [json.loads(line) for line in (labelled / "deception" / "answers.jsonl").read_text().split("\n")]
    held_out = [row for row in rows if split_of("answers", row["group"], row["text"]) == "heldout"]
    assert by_name["answers"]["test_rows"] == len(held_out)
    assert by_name["answers"]["test_groups"] == len({row["group"] for row in held_out})
    values = {item["detector"]: item for item in by_name["answers"]["measured"]}
    assert values["linear probe"]["auroc"]["value"] == 1.0
    assert values["bag of words"]["auroc"]["value"] == 1.0
    assert 1 <= values["sparse rule"]["features"] <= 6
    text = (tmp_path / "evaluation.md").read_text()
    assert "| power/wants_x |" in text
    assert "not measured: benign/instructions: all 40 rows are negative" in text
    clear = (tmp_path / "clearest.md").read_text()
    assert clear.count("### ") == len(record["clearest"]) > 0


@pytest.mark.slow
def test_anybodys_folder_is_measured(pair, tmp_path):
    """Other names, csv, no groups: every row is a group of its own, and the file's name is the concept."""
    data = tmp_path / "mine"
    data.mkdir()
    lines = [f"{('power and gold', 'a cat on a mat')[i % 2]} {i},{1 - i % 2}" for i in range(120)]
    (data / "greedy.csv").write_text("\n".join(["text,label", *lines]))
    (data / "calm.csv").write_text("text,label\n" + "".join(f"name {i} rivers,0\n" for i in range(40)))
    (data / "notes.txt").write_text("to do\n")
    arguments = ["--data", data, "--out", tmp_path / "out", *pair.options, "--features", 4, "--jobs", 1]
    _evaluate(*arguments, "--train-fraction", 0.7, "--split-seed", 2)
    record = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    (source,) = record["sources"]
    assert (source["concept"], source["source"]) == ("greedy", "greedy")
    assert source["train_rows"] + source["test_rows"] == 120
    assert 70 < source["train_rows"] < 100
    assert source["test_groups"] == source["test_rows"]
    assert record["notes"] == [
        "notes.txt: not used: its rows have no label; name it with --false-positives to count what fires on it"
    ]
    assert "notes.txt: not used" in (tmp_path / "out" / "evaluation.md").read_text()
    again = _evaluate(*arguments, "--labelled", "greedy.csv", "--split-seed", 2)
    assert "| greedy/greedy |" in again.stdout
    assert "notes.txt" not in again.stdout


def test_only_the_answer_of_a_response_is_read(pair):
    reader = LabelledReader(open_pair(str(pair.model), pair.dictionary), 64)
    row = SourceText("Human: abc?\n\nAssistant: yes", True, "response", "g")
    ids, start = reader.tokens(row)
    assert reader.pair.loaded.tokenizer.decode(ids[start:]) == " yes"
    half = reader.read((row,), np.zeros(1, np.intp))
    x = reader.pair.residuals(torch.tensor([ids]))[0, start:]
    assert np.allclose(half.residual[0], x.mean(0).numpy(), atol=1e-5)
    assert half.replies == (" yes",)
    long = SourceText("Human: " + "abc " * 60 + "\n\nAssistant: yes", True, "response", "g")
    ids, start = reader.tokens(long)
    assert len(ids) == 64
    assert ids[0] == 0
    assert reader.pair.loaded.tokenizer.decode(ids[start:]) == " yes"
    long = SourceText("abc " * 60, True, "statement", "g")
    ids, start = reader.tokens(long)
    assert (len(ids), start, reader.pair.loaded.tokenizer.decode(ids[1:5])) == (64, 1, "abc ")


def test_what_cannot_be_measured_is_an_error(pair, labelled, tmp_path):
    wrong = _evaluate("--data", labelled, "--out", tmp_path, *pair.options, "--only", "benign", code=2)
    assert "no source can be measured" in wrong.stderr
    wrong = _evaluate("--data", labelled, "--out", tmp_path, *pair.options, "--only", "greed", code=2)
    assert "no concept or source 'greed'" in wrong.stderr
    wrong = _evaluate("--data", tmp_path, "--out", tmp_path, *pair.options, code=2)
    assert "holds no labelled file" in wrong.stderr
