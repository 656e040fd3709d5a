"""Folders of sparsify: what they say about themselves, and those that cannot be read."""

from __future__ import annotations

import pytest

from monitor.dictionary.formats import read_dictionary
from tests.dictionary.formats import layouts
from tests.dictionary.formats.refusals import change, refused


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"transcode": True}, "transcoder"),
        ({"skip_connection": True}, "transcoder"),
        ({"signed": True}, "signed activations"),
        ({"activation": "batchtopk"}, "not one of topk, groupmax"),
        ({"num_latents": 65}, "declares 65 features"),
        ({"k": 0}, "k is 0"),
    ],
)
def test_configurations_that_cannot_be_read(tmp_path, entries, message):
    source = tmp_path / layouts.sparsify(tmp_path).source
    change(source / "cfg.json", **entries)
    refused(source, message)


def test_what_the_run_one_folder_up_says(tmp_path):
    source = tmp_path / layouts.sparsify(tmp_path).source
    card = read_dictionary(source).card
    assert (card.context_size, card.dataset, card.model_name) == (
        2048,
        "a corpus",
        "meta-llama/Meta-Llama-3-8B",
    )
    (source.parent / "config.json").unlink()
    card = read_dictionary(source).card
    assert (card.hook_name, card.layer, card.context_size, card.model_name) == ("layers.10", 10, None, None)


def test_the_expansion_factor_counts_features_where_their_number_is_not_stated(tmp_path):
    source = tmp_path / layouts.sparsify(tmp_path).source
    change(source / "cfg.json", expansion_factor=5)
    refused(source, "declares 80 features of width 16, and sae.safetensors has 64")
    change(source / "cfg.json", expansion_factor=5, num_latents=64)
    assert read_dictionary(source).autoencoder.features == 64
