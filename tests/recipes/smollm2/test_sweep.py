"""The sweep, end to end on a toy model: each layer's dictionary is the one that a training of its own would give."""

import json
from pathlib import Path

import pytest

from monitor.dictionary.training.settings import TrainSettings
from monitor.lab.training import TrainingText, open_subject, train_for_sweep
from monitor.recipes.smollm2 import layers
from monitor.recipes.smollm2 import sweep as module
from monitor.recipes.smollm2.plan import SweepRun
from monitor.recipes.smollm2.sweep import SweepText, sweep
from tests.dictionary.training.tiny_model import write_text
from tests.recipes.smollm2.small import write_chat_model


class _Silent:
    def read(self, tokens: int) -> None: ...

    def step(self, metrics: object) -> None: ...

    def measured(self, tokens: int) -> None: ...


@pytest.mark.slow
def test_layers_widths_and_sparsities_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONTEXT", 32)
    monkeypatch.setattr(module, "BUFFER", 4096)
    model, data = str(write_chat_model(tmp_path / "model")), write_text(tmp_path / "text.jsonl")
    text = SweepText(model, (f"{data}=1",), 8192, 600, compile=False)
    runs = [SweepRun(0, 64, 4), SweepRun(1, 64, 4), SweepRun(1, 128, 8)]
    lines: list[str] = []
    out = tmp_path / "sweep"
    found = sweep(text, runs, out, lines.append)
    assert [row["name"] for row in found] == ["layer0-64-k4", "layer1-64-k4", "layer1-128-k8"]
    assert json.loads((out / "sweep.json").read_text())["runs"] == found
    assert found[0]["fvu"] != found[1]["fvu"]
    assert found[2]["l0"] > found[1]["l0"]

    given = TrainingText(model, 1, text.sources, 32, 600, "cpu")
    settings = TrainSettings(features=64, tokens=8192, k=4, buffer=4096).resolved(32)
    alone = train_for_sweep(tmp_path / "alone", settings, open_subject(given), _Silent())
    assert found[1]["fvu"] == pytest.approx(alone["fvu"], abs=0.02), "residuals are kept in bfloat16"

    monkeypatch.setattr(
        layers, "residuals_of_layers", lambda *_: pytest.fail("a finished run was made again")
    )
    assert sweep(text, runs, out, lines.append) == found
