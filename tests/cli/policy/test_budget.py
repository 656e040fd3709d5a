"""`policy budget`: what it refuses, and the command from texts to tables."""

import json
import shutil

import pytest

from monitor.cli.policy.budget import weights_of
from monitor.errors import InputError
from tests.cli.policy.tools import SHIPPED, output_of, run
from tests.policy.policy_files import write_concept


def test_weights_are_numbers_above_zero():
    assert weights_of(["scams=2", "bias=0.5"]) == {"scams": 2.0, "bias": 0.5}
    for wrong in ("scams", "scams=", "scams=-1", "scams=0", "scams=inf", "scams=nan"):
        with pytest.raises(InputError, match="write NAME=NUMBER with a number above 0"):
            weights_of([wrong])


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--weight", "greed"], "write NAME=NUMBER"),
        (["--budget", "0"], "0.0001"),
        ([], "0 benign texts cannot set a threshold"),
        (["--benign", "nowhere"], "no file or folder at nowhere"),
    ],
)
def test_what_cannot_be_used_is_refused_before_the_work(tmp_path, arguments, word):
    write_concept(tmp_path)
    done = run("budget", tmp_path, *arguments)
    assert done.exit_code == 2
    assert word in " ".join(done.output.split())


@pytest.mark.slow
def test_from_texts_to_tables(tmp_path):
    for name in ("power-seeking", "scams"):
        for path in SHIPPED.glob(f"{name}.*"):
            shutil.copy(path, tmp_path)
        lock = tmp_path / "locks" / "tiny" / f"{name}.lock.yaml"
        lock.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SHIPPED / lock.relative_to(tmp_path), lock)
    (tmp_path / "benign").mkdir()
    lines = (SHIPPED / "benign.jsonl").read_text().splitlines()
    rows = [{"kind": "instructions", **json.loads(line)} for line in lines]
    (tmp_path / "benign" / "short.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = run("budget", tmp_path, "--budget", 0.05, "--benign-tokens", 20_000, "--weight", "scams=2")
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "Benign texts on which any rule that acts fires; budget 5.00%" in said
    assert "scams 2" in said
    assert "no rate is promised for prompts of" in said
    assert "2 locks and budget.json written" in said
    again = " ".join(output_of("check", tmp_path).split())
    assert "budget 5.00%" in again
    assert "no problem found" in again
