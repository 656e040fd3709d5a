"""The commands of the recipe, end to end on a toy model."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from monitor.dictionary.bundle import load_dictionary
from monitor.recipes.corpus import corpora
from monitor.recipes.smollm2 import __main__ as command
from monitor.recipes.smollm2 import questions, sweep
from monitor.recipes.smollm2.generations import catalogue, example_questions, speech
from monitor.recipes.smollm2.plan import SweepRun
from tests.recipes.smollm2.generations.test_contrast import CALM
from tests.recipes.smollm2.small import write_chat_model


def _run(*arguments: object) -> str:
    done = CliRunner().invoke(command.app, [str(part) for part in arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


@pytest.mark.slow
def test_answers_go_on_where_they_end_and_the_sweep_reads_them(
    tmp_path: Path, data: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "corpora", lambda folder: corpora(folder, library))
    monkeypatch.setattr(questions, "TOPICS", ("bread",))
    monkeypatch.setattr(questions, "CODE_TASKS", ("adds two numbers",))
    monkeypatch.setattr(questions, "IDENTITY", ("Who are you?",))
    model, out = write_chat_model(tmp_path / "model"), tmp_path / "answers.jsonl"
    ask = ("answers", "--data", data, "--model", model, "--out", out, "--longest", 6, "--batch", 16)
    first = _run(*ask)
    lines = out.read_text("utf-8").splitlines()
    asked = questions.questions(corpora(data, library))
    assert {json.loads(line)["asked"] for line in lines} == {question.digest for question in asked}
    assert f"{len(asked)} questions, {len(asked)} of them to be answered" in first

    out.write_text("".join(f"{line}\n" for line in lines[:-2]), "utf-8")
    assert "2 of them to be answered" in _run(*ask)
    assert len(out.read_text("utf-8").splitlines()) == len(lines)

    for name, value in (("CONTEXT", 32), ("BUFFER", 4096)):
        monkeypatch.setattr(sweep, name, value)
    monkeypatch.setattr(command, "SWEEP", (SweepRun(1, 64, 4),))
    monkeypatch.setattr(command, "SWEEP_HELD_OUT", 600)
    shown = _run(
        "sweep",
        "--data",
        data,
        "--model",
        model,
        "--answers",
        out,
        "--out",
        tmp_path / "s",
        "--tokens",
        4096,
        "--no-compile",
    )
    assert "layer1-64-k4" in shown
    assert (tmp_path / "s" / "texts" / "answers.jsonl").exists()
    assert json.loads((tmp_path / "s" / "sweep.json").read_text())["runs"][0]["features"] == 64

    monkeypatch.setattr(command, "SHIPPED", SweepRun(1, 64, 4))
    monkeypatch.setattr(command, "CONTEXT", 32)
    more = ("--answers", out, "--out", tmp_path / "run", "--tokens", 8192, "--held-out", 600, "--no-compile")
    assert "8,192 of 8,192 tokens" in _run("train", "--data", data, "--model", model, *more)
    trained = tmp_path / "run" / "dictionary"
    assert load_dictionary(trained).card.layer == 1
    assert "| held-out corpus |" in _run("measure", "--data", data, "--model", model, "--dictionary", trained)
    assert "labelled/statements" in json.loads((trained / "corpora.json").read_text())


def test_generations_are_written_told_and_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "CONTRASTS", (CALM, replace(catalogue.DANGEROUS, name="asked")))
    monkeypatch.setattr(speech, "EVERYDAY", ("How is the weather?", "What is for lunch?"))
    monkeypatch.setattr(speech, "PLAIN_DRAWS", 1)
    model, out = write_chat_model(tmp_path / "model"), tmp_path / "generations"
    ask = ("generations", "--model", model, "--out", out, "--draws", 2, "--longest", 4, "--dtype", "float32")
    shown = _run(*ask)
    assert "| calm | + | is calm | 6 |" in shown
    assert "asked, nothing told:" in shown
    assert (out / "asked" / "requests.jsonl").exists()
    assert (out / "calm" / "generations.jsonl").exists()
    questions = (out / "benign" / "questions.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["text"] for line in questions] == ["How is the weather?", "What is for lunch?"]
    held = {path.name: path.read_text("utf-8") for path in (out / "said").iterdir()}
    assert set(held) == {"calm.json", "asked.json", "requests.json", "everyday.json"}
    assert "0 tokens in" in _run(*ask)
    assert {path.name: path.read_text("utf-8") for path in (out / "said").iterdir()} == held


def test_questions_for_examples_are_asked_and_become_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example_questions, "FOR_EXAMPLES", (CALM,))
    model, out, policies = write_chat_model(tmp_path / "model"), tmp_path / "said", tmp_path / "policies"
    ask = ("--model", model, "--out", out, "--draws", 1, "--longest", 4, "--dtype", "float32")
    assert "| calm | + | is calm | 3 |" in _run("generations", "--questions", "examples", *ask)
    assert {path.name for path in (out / "said").iterdir()} == {"calm.json"}
    assert not (out / "benign").exists()

    row = {"text": "Human: And now?\n\nAssistant: All is calm.", "label": 1, "group": "question 2"}
    (out / "calm" / "generations.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    policies.mkdir()
    (policies / "calm.examples.jsonl").write_text(
        '{"text": "x", "label": "negative", "group": "1"}\n', "utf-8"
    )
    told = _run("examples", "--said", out, "--only", "calm", "--policies", policies)
    assert told == "calm: 1 examples of what the model said or was asked\n"
    lines = (policies / "calm.examples.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["label"] for line in lines] == ["negative", "positive"]
