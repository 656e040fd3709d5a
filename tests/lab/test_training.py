"""Training for a model: progress lines, what a sweep keeps, and what cannot be trained."""

import dataclasses
import itertools
import json

import pytest
import torch

from monitor.dictionary.training.settings import TrainSettings
from monitor.dictionary.training.stream import FORWARD
from monitor.dictionary.training.trainer import StepMetrics
from monitor.errors import ConfigurationError
from monitor.lab.training import (
    ProgressLines,
    TrainingText,
    _held_out,
    is_first,
    numbers_of,
    open_subject,
    storage_of,
    together,
    train_for_sweep,
)
from tests.dictionary.training.tiny_model import write_model, write_text


def test_where_there_is_no_terminal_a_line_comes_every_thirty_seconds():
    lines, clock = [], iter(range(0, 100_000, 10))
    settings = TrainSettings(features=64, tokens=100 * 256, batch=256, buffer=256)
    progress = ProgressLines(settings, lines.append, lambda: float(next(clock)))
    for step in range(60, 100):  # resumed after 60 steps; each takes ten seconds
        progress(StepMetrics(step, (step + 1) * 256, 1.0, 0.25, 31.9, 0.0, 1e-3, 0.0))
    steps = [int(line.split(" of ")[0].replace(",", "")) // 256 - 1 for line in lines[1:-1]]
    assert steps == [*range(60, 100, 3)]
    assert (
        lines[2] == "16,384 of 25,600 tokens  FVU 0.2500  L0 31.9  dead 0.0 %  26 tokens/s  0:06:00 remaining"
    )
    assert "0:00:00 remaining" in lines[-2]


SETTINGS = TrainSettings(features=64, tokens=2560, batch=256, buffer=256, learning_rate=1e-3)


def test_numbers_of_a_step_in_one_line():
    assert numbers_of(StepMetrics(3, 1024, 1.0, 0.12345, 31.96, 0.015, 1e-3, 0.0)) == (
        "FVU 0.1235  L0 32.0  dead 1.5 %"
    )


@pytest.mark.parametrize(("weights", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_weights_are_stored_as_asked(tmp_path, weights, dtype):
    storage = storage_of(tmp_path, restart=True, weights=weights)
    assert (storage.folder, storage.restart, storage.weights) == (tmp_path, True, dtype)


def test_weights_that_cannot_be_stored_so(tmp_path):
    with pytest.raises(ConfigurationError, match="--weights int4 is not one of float32, bfloat16"):
        storage_of(tmp_path, weights="int4")


def stored(out, settings=SETTINGS, **changes):
    """A run of a sweep that is finished."""
    asked = json.loads(json.dumps(dataclasses.asdict(settings)))
    folder = out / f"{settings.features}-{settings.tokens}-{settings.learning_rate:g}"
    folder.mkdir()
    (folder / "row.json").write_text(json.dumps({"fvu": 0.25, "asked": {**asked, **changes}}))


def test_a_sweep_does_not_train_again_what_is_there(tmp_path):
    stored(tmp_path)
    assert train_for_sweep(tmp_path, SETTINGS, None, None) == {"fvu": 0.25}


def test_a_sweep_does_not_take_another_run_for_its_own(tmp_path):
    stored(tmp_path, k=7)
    with pytest.raises(
        ConfigurationError, match="holds a run with k 7, not 32; give another --out, or delete it"
    ):
        train_for_sweep(tmp_path, SETTINGS, None, None)


def test_one_process_is_the_first_and_leaves_alone():
    with together():
        assert is_first()
    with pytest.raises(KeyError), together():
        raise KeyError
    assert is_first()


@pytest.mark.slow
def test_a_subject_is_the_model_with_its_text(tmp_path):
    model, text = write_model(tmp_path / "model"), write_text(tmp_path / "text.jsonl")
    given = TrainingText(str(model), None, (str(text),), 1000, 300, "cpu")
    subject = open_subject(given)
    assert subject.card.model_name == "model", (
        "the last part of a folder, since paths differ between machines"
    )
    assert subject.card.hook_name == f"blocks.{subject.card.layer}.hook_resid_post"
    assert subject.card.dataset == "text.jsonl"
    length = subject.card.context_size
    assert length < 1000, "no longer than the model's context"
    rows = torch.cat(list(subject.held_out))
    assert rows.shape == (-(-300 // length), length)
    held = {tuple(row.tolist()) for row in rows}
    taken = {tuple(row.tolist()) for row in itertools.islice(subject.rows(), 20)}
    assert not held & taken
    ids = rows[:2]
    rough, exact = subject.residuals(ids), subject.exact_residuals(ids)
    assert exact.shape == (2, length, subject.d_model)
    assert float((rough.float() - exact).norm() / exact.norm()) < 0.05
    assert torch.equal(subject.logits(ids, lambda x: x), subject.logits(ids, None))


def test_a_text_without_a_whole_row_is_too_short():
    with pytest.raises(ConfigurationError, match="the text is too short for a single row; give more"):
        _held_out(iter(()), 300, 32)
    kept = _held_out(iter(torch.arange(20 * FORWARD).view(-1, 2)), 2 * FORWARD + 1, 2)
    assert [len(part) for part in kept] == [FORWARD, 1]
