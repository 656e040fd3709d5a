"""The recipe of the bundled dictionary, end to end on a toy model, and what it stands on."""

import ast
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from monitor.dictionary.bundle import load_dictionary
from monitor.recipes.corpus import corpora
from monitor.recipes.tiny import dictionary
from tests.dictionary.training.tiny_model import write_model


@pytest.mark.slow
def test_one_command_trains_a_dictionary_on_the_training_halves(
    tmp_path: Path, data: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dictionary, "corpora", lambda folder: corpora(folder, library))
    for name, value in (("FEATURES", 64), ("K", 4), ("HELD_OUT", 600), ("CONTEXT", 32)):
        monkeypatch.setattr(dictionary, name, value)
    folders = {"--data": data, "--model": write_model(tmp_path / "model"), "--out": tmp_path / "dictionary"}
    arguments = [str(part) for pair in folders.items() for part in pair]
    done = CliRunner().invoke(
        dictionary.app, [*arguments, "--text", str(tmp_path / "text"), "--tokens", "4096"]
    )
    assert done.exit_code == 0, (done.output, done.exception)
    assert "4,096 of 4,096 tokens  FVU" in done.output
    assert load_dictionary(tmp_path / "dictionary").autoencoder.features == 64
    lines = (tmp_path / "text" / "python.jsonl").read_text().splitlines()
    written = {json.loads(line)["text"] for line in lines}
    held_out = [text.text for text in corpora(data, library)["python"] if text.split == "heldout"]
    assert held_out
    assert written
    assert written.isdisjoint(held_out)


def test_recipes_do_not_import_the_command_line() -> None:
    folder = Path(dictionary.__file__).parents[1]
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [name for name in names if name.startswith("monitor.cli")], path
