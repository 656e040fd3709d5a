"""Gemma Scope: what folders' names say, and folders that cannot be read."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monitor.dictionary.formats import read_dictionary
from tests.dictionary.formats import layouts
from tests.dictionary.formats.refusals import refused


def test_scope_of_embeddings(tmp_path):
    layout = layouts.gemma_scope(tmp_path)
    moved = tmp_path / "google/gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6"
    moved.parent.mkdir(parents=True)
    (tmp_path / layout.source).rename(moved)
    refused(moved, "reads token embeddings")


@pytest.mark.parametrize(
    ("repo", "inside", "model", "hook", "l0"),
    [
        (
            "gemma-scope-9b-it-res",
            "layer_31/width_16k/average_l0_76",
            "google/gemma-2-9b-it",
            "blocks.31.hook_resid_post",
            76.0,
        ),
        (
            "gemma-scope-2b-pt-mlp",
            "layer_3/width_65k/average_l0_9",
            "google/gemma-2-2b",
            "blocks.3.hook_mlp_out",
            9.0,
        ),
        ("gemma-scope-2b-pt-att", "layer_3/width_65k", "google/gemma-2-2b", "blocks.3.attn.hook_z", None),
        ("somebody-elses", "layer_3/width_65k", None, None, None),
    ],
)
def test_folders_name_model_layer_and_hook_point(tmp_path, repo, inside, model, hook, l0):
    layout = layouts.gemma_scope(tmp_path)
    moved = tmp_path / "else" / repo / inside
    moved.parent.mkdir(parents=True)
    (tmp_path / layout.source).rename(moved)
    card = read_dictionary(moved).card
    assert (card.model_name, card.hook_name, card.l0) == (model, hook, l0)
    assert card.layer == (31 if l0 == 76.0 else None), "only residuals behind a layer are the layer's output"


def test_names_of_tensors_in_small_letters_too(tmp_path):
    source = tmp_path / layouts.gemma_scope(tmp_path).source
    expected = read_dictionary(source).autoencoder
    with np.load(source / "params.npz") as stored:
        arrays = {name.lower(): stored[name] for name in stored.files}
    np.savez(source / "params.npz", **arrays)
    assert torch.equal(read_dictionary(source).autoencoder.encoder, expected.encoder)
    arrays.pop("threshold")
    np.savez(source / "params.npz", **arrays)
    refused(source, "missing here: threshold; unknown: none")
