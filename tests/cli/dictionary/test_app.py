"""`sae-monitor dictionary`: every command that is listed can be imported, and its help says what to give."""

import importlib

import pytest
from typer.testing import CliRunner

from monitor.cli.dictionary.app import COMMANDS, dictionary_app


def test_the_commands_in_the_order_of_their_use():
    assert [entry.name for entry in COMMANDS] == ["train", "sweep", "info", "convert", "describe", "verify"]
    listed = CliRunner().invoke(dictionary_app, ["--help"]).output
    places = [listed.index(f" {entry.name} ", listed.index("Commands")) for entry in COMMANDS]
    assert places == sorted(places)


@pytest.mark.parametrize("entry", COMMANDS, ids=lambda entry: entry.name)
def test_every_command_is_there_and_every_flag_has_a_help(entry):
    module, _, name = entry.target.partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    done = CliRunner().invoke(dictionary_app, [entry.name, "--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    for line in done.output.splitlines():
        words = line.strip("│ ").split()
        if words and words[0].startswith("--"):
            assert len(words) > 2, line


def test_without_a_command_its_help_is_shown():
    assert "Train, check and describe dictionaries." in CliRunner().invoke(dictionary_app, []).output
