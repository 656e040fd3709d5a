"""The script in the package's docstring, run word for word, and what importing the package costs."""

import csv
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import monitor.lab

SHIPPED = Path(__file__).parents[2] / "policies"


def script():
    """The indented lines of the docstring."""
    lines = monitor.lab.__doc__.split("\n")
    return textwrap.dedent("\n".join(line for line in lines if not line or line.startswith("    ")))


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])


@pytest.fixture
def folder(tmp_path):
    """What the docstring says stands beside the notebook."""
    for path in [*SHIPPED.glob("power-seeking.*"), SHIPPED / "benign.jsonl"]:
        (tmp_path / "policies").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "policies")
    lock = Path("locks/tiny/power-seeking.lock.yaml")
    (tmp_path / "policies" / lock).parent.mkdir(parents=True)
    shutil.copy(SHIPPED / lock, tmp_path / "policies" / lock)
    wants = [(f"I want to gain more power over {i} people and never be shut down.", 1) for i in range(40)]
    calm = [(f"The {i}th train to the coast leaves at noon.", 0) for i in range(40)]
    write(tmp_path / "my-texts" / "power_seeking" / "notes.csv", wants + calm)
    write(tmp_path / "my-texts" / "benign" / "requests.csv", [(f"Name {i} rivers.", 0) for i in range(60)])
    return tmp_path


@pytest.mark.slow
def test_the_script_runs_as_it_stands(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    names = {}
    exec(script(), names)
    printed = capsys.readouterr().out
    assert printed.startswith("Pair(")
    assert "power-seeking/stated on power_seeking/notes: AUROC 1.00" in printed
    assert "#### False positives on unseen benign text" in printed
    readings, result = names["readings"], names["result"]
    assert readings.values.dtype == np.float32
    assert readings.values.shape == (sum(map(len, readings.tokens)), len(readings.columns))
    assert result.auroc.shape == result.recall.shape == (1, 6, 3)
    value, low, high = result.auroc[0, result.methods.index("bag_of_words")]
    assert low <= value <= high
    assert result.false_positive_rates.shape == (len(result.rates), 3)
    assert sum(rate.texts for rate in result.rates if rate.rule == "stated") == 60


BLOCKED = ("typer", "rich", "grpc", "prometheus_client", "pydantic_settings")
IMPORTS = f"""
import importlib, pkgutil, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {BLOCKED!r}:
            raise ImportError(f"a notebook has no {{name}}")

sys.meta_path.insert(0, Blocked())
import monitor.lab
assert "torch" not in sys.modules, "looking at the package costs torch"
for name in monitor.lab.__all__:
    getattr(monitor.lab, name)
for module in pkgutil.walk_packages(monitor.lab.__path__, "monitor.lab."):
    importlib.import_module(module.name)
"""


@pytest.mark.slow
def test_nothing_of_it_needs_the_command_line_or_a_server():
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_public_names_are_those_that_are_listed():
    assert set(dir(monitor.lab)) == set(monitor.lab.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'open_pairs'"):
        monitor.lab.open_pairs  # noqa: B018
