"""The recipe that writes the page of demonstrations, on the bundled pair."""

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from monitor.lab.demonstrations.catalogue import FILMS
from monitor.lab.demonstrations.study import DemonstrationSizes
from monitor.lab.pair import open_pair
from monitor.recipes.smollm2.demonstrations import app, carry_out


@pytest.mark.slow
def test_the_page_is_there_after_every_demonstration(tmp_path, monkeypatch):
    small = replace(FILMS, targets=(2.0,), new=6)
    pages = []

    def told(line):
        if "worked on" in line:
            pages.append((tmp_path / "demonstrations.md").read_text())

    monkeypatch.setattr("monitor.recipes.smollm2.demonstrations.typer.echo", told)
    other = replace(small, title="The same once more")
    pair = open_pair(device="cpu")
    found = carry_out(pair, [small, other], DemonstrationSizes(prompts=3), tmp_path)
    assert len(found) == len(pages) == 2
    assert small.title in pages[0]
    assert other.title not in pages[0]
    assert other.title in pages[1]
    assert pair.dictionary.digest[:19] in pages[0]


def test_a_wrong_name_is_said_before_a_model_is_loaded(tmp_path):
    asked = ["--model", "nowhere", "--dictionary", "nowhere", "--out", str(tmp_path), "--only", "london"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code != 0
    assert "no demonstration is called 'london'" in str(done.exception)
