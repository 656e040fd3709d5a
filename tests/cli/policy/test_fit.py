"""`policy fit`: what it refuses before the work, and the locks as a table."""

import io
import re

import pytest
from rich.console import Console

from monitor.cli.policy.fit import card_table
from monitor.policy.files.lock_folders import lock_path
from tests.cli.policy.tools import run
from tests.policy.policy_files import EXAMPLES, PINNED, lock_for, write_concept, write_policy


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--only", "envy"], "no policy called envy"),
        ([], "0 benign texts cannot set a threshold"),
        (["--extra", "nowhere"], "no folder at nowhere"),
        (["--extra", "{}"], "are about envy, and no policy here is"),
    ],
)
def test_fit_refuses_what_it_cannot_use(tmp_path, arguments, word):
    write_concept(tmp_path)
    (tmp_path / "envy").mkdir()
    (tmp_path / "envy" / "rows.csv").write_text("text,label\nmine,1\nyours,0\n")
    done = run("fit", tmp_path, *(argument.format(tmp_path) for argument in arguments))
    assert done.exit_code == 2
    assert word in " ".join(done.output.split())


def test_a_fit_refuses_what_the_pair_does_not_have(tmp_path):
    (tmp_path / "benign.jsonl").write_text("".join(f'{{"text": "word {i}"}}\n' for i in range(250)))
    head, rate = PINNED.split("features:\n")[0], "threshold: {false_positive_rate: 0.01}"
    write_policy(tmp_path, f"{head}rules:\n  - {{name: r, features: [{{index: 2000000}}], {rate}}}\n")
    other = f"{head}probe: {{weights: [1, 2]}}\nrules:\n  - {{name: r, {rate}}}\n"
    write_policy(tmp_path, other.replace("name: greed", "name: envy"), "envy")
    done = run("fit", tmp_path)
    assert done.exit_code == 2
    assert re.search(r"greed\.yaml:\d+:\d+: feature 2000000 does not exist", done.output)
    assert re.search(r"envy\.yaml:\d+:\d+: the probe has 2 weights", done.output)


def test_a_fit_leaves_policies_of_other_models_alone(tmp_path):
    (tmp_path / "benign.jsonl").write_text("".join(f'{{"text": "word {i}"}}\n' for i in range(250)))
    bound = 'match: {models: ["some-other-*"]}\nconcept:'
    write_concept(tmp_path)
    file = tmp_path / "greed.yaml"
    file.write_text(file.read_text().replace("concept:", bound, 1))
    lock = lock_path(file, "other")
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text("of the other model\n")
    done = run("fit", tmp_path)
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "greed: bound to some-other-*; not fitted to this model" in said
    assert "0 locks written" in said
    assert lock.read_text() == "of the other model\n"


def test_a_row_for_every_lock_and_the_baselines_of_those_with_a_card():
    lock = lock_for(EXAMPLES)
    bare = lock.model_copy(update={"policy": "envy", "card": None, "features": [], "suppress": []})
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(card_table([lock, bare]))
    text = console.export_text()
    rows = {
        line.split()[0]: line.split()
        for line in text.splitlines()
        if line.split()[:1] and line.split()[0] in ("greed", "envy")
    }
    lines = [line.split() for line in text.splitlines() if line.split()[:1] == ["greed"]]
    assert lines[0] == ["greed", "1/1", "0.90", "0.80-0.95", "0.50", "0.40-0.60", "0.10", "beta"]
    assert lines[1] == ["greed", "0.90", "50", "0.90", "50", "0.90", "50"], "policy, linear and words"
    assert rows["envy"] == ["envy", "features/0"]
