"""Training for a model: what a sweep keeps, and what cannot be trained."""

import dataclasses
import itertools
import json

import pytest
import torch

from monitor.dictionary.packed_text import PackedText
from monitor.dictionary.training.settings import TrainSettings
from monitor.dictionary.training.stream import FORWARD
from monitor.errors import ConfigurationError
from monitor.lab.training import (
    TrainingText,
    _held_out,
    is_first,
    open_subject,
    storage_of,
    together,
    train_for_sweep,
)
from tests.dictionary.training.tiny_model import write_model, write_text

SETTINGS = TrainSettings(features=64, tokens=2560, batch=256, buffer=256, learning_rate=1e-3)


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
    assert subject.inputs.card.model_name == "model", (
        "the last part of a folder, since paths differ between machines"
    )
    assert subject.inputs.card.hook_name == f"blocks.{subject.inputs.card.layer}.hook_resid_post"
    assert subject.inputs.card.dataset == "text.jsonl"
    length = subject.inputs.card.context_size
    assert length < 1000, "no longer than the model's context"
    rows = torch.cat([part.ids for part in subject.inputs.held_out])
    assert rows.shape == (-(-300 // length), length)
    held = {tuple(row.tolist()) for row in rows}
    taken = {tuple(row.ids.tolist()) for row in itertools.islice(subject.inputs.rows(), 20)}
    assert not held & taken
    ids = rows[:2]
    rough, exact = subject.inputs.residuals(ids), subject.inputs.exact_residuals(ids)
    assert exact.shape == (2, length, subject.inputs.d_model)
    assert float((rough.float() - exact).norm() / exact.norm()) < 0.05
    assert torch.equal(subject.inputs.logits(ids, lambda x: x), subject.inputs.logits(ids, None))


def test_a_text_without_a_whole_row_is_too_short():
    with pytest.raises(ConfigurationError, match="the text is too short for a single row; give more"):
        _held_out(iter(()), 300, 32)
    rows = [
        PackedText(row, torch.zeros(2, dtype=torch.int64)) for row in torch.arange(20 * FORWARD).view(-1, 2)
    ]
    kept = _held_out(iter(rows), 2 * FORWARD + 1, 2)
    assert [len(part.ids) for part in kept] == [FORWARD, 1]
