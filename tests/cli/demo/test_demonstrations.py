"""`sae-monitor demo --steer`: what one feature does, on the bundled pair."""

import json

import pytest

from monitor.cli.demo.demonstrations import chosen
from monitor.errors import NotFound
from monitor.lab.demonstrations.catalogue import ALL


def test_demonstrations_are_taken_by_name_once():
    assert [one.name for one in chosen(["human", "paris", "human"])] == ["human", "paris"]
    assert chosen(["paris", "all"]) == list(ALL)
    with pytest.raises(NotFound, match="no demonstration is called 'london'"):
        chosen(["london"])


def test_a_wrong_name_is_said_before_a_model_is_loaded(run):
    done = run("demo", "--steer", "london", "--model", "/nowhere", "--dictionary", "/nowhere")
    assert done.exit_code == 2
    assert "no demonstration is called 'london'; there are: san-francisco" in done.stderr


def test_every_demonstration_stands_in_the_help(run):
    said = " ".join(run("demo", "--help").stdout.replace("│", " ").split())
    for one in ALL:
        assert one.name in said


@pytest.mark.slow
def test_the_bundled_pair_is_brought_to_speak_of_films(run, tmp_path):
    sizes = ["--prompts", "5", "--temperature", "0", "--skip-self-test"]
    done = run("demo", "--steer", "films", *sizes, "-o", str(tmp_path))
    assert done.exit_code == 0, done.stderr
    assert "worked on " in done.stdout
    assert "without: " in done.stdout
    (record,) = json.loads((tmp_path / "demonstrations.json").read_text())["demonstrations"]
    assert sum(record["worked"]) >= 2
    page = (tmp_path / "demonstrations.md").read_text()
    assert "| demonstration | feature |" in page
    assert "temperature 0, seed 0." in page
