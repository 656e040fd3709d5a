"""`dictionary info` and `dictionary convert` as an operator calls them, on checkpoints of every family."""

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from monitor.cli.app import app
from monitor.cli.lazy import LazyCommand
from tests.dictionary.formats.test_families import MAKERS


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("name", MAKERS)
def test_info_of_every_family(tmp_path, name):
    layout = MAKERS[name](tmp_path)
    done = run("dictionary", "info", tmp_path / layout.source)
    assert done.exit_code == 0, done.output
    lines = {line[:28].strip(): line[29:] for line in done.output.splitlines()}
    assert lines["format"] == layout.family
    assert lines["place"] == layout.hook
    assert (lines["features"], lines["width"]) == ("64", "16")
    assert lines["digest"].startswith("sha256:")
    assert lines["statistics"].startswith("none (would be in ")
    assert ("active at a token" in lines) == (layout.k is not None)
    assert "None" not in done.output


def test_convert_and_look_again(tmp_path):
    layout = MAKERS["dictionary-learning, GatedAutoEncoder"](tmp_path)
    done = run("dictionary", "convert", tmp_path / layout.source, tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "(dictionary-learning)" in done.output
    assert "format                       saelens" in run("dictionary", "info", tmp_path / "out").output
    again = run("dictionary", "convert", tmp_path / layout.source, tmp_path / "out")
    assert again.exit_code == 2
    assert "holds a dictionary already" in again.output


def test_a_named_format(tmp_path):
    layout = MAKERS["sparsify"](tmp_path)
    wrong = run("dictionary", "info", tmp_path / layout.source, "--dictionary-format", "gemma-scope")
    assert wrong.exit_code == 2
    assert "has no params.npz" in wrong.output
    assert (
        run("dictionary", "info", tmp_path / layout.source, "--dictionary-format", "sparsify").exit_code == 0
    )


def test_every_command_that_takes_a_dictionary_takes_its_format():
    found = dict(_commands(get_command(app), "sae-monitor"))
    assert len(found) > 8
    assert [name for name, options in found.items() if "--dictionary-format" not in options] == []


def _commands(command, name):
    if isinstance(command, LazyCommand):
        command = command.load()
    for child, below in getattr(command, "commands", {}).items():
        yield from _commands(below, f"{name} {child}")
    options = {option for parameter in command.params for option in parameter.opts}
    if "--dictionary" in options or "dictionary" in options:
        yield name, options
