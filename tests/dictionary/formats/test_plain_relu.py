"""Plain ReLU dictionaries of Goodfire and qresearch."""

from __future__ import annotations

import pytest
import torch

from monitor.dictionary.formats import read_dictionary
from monitor.dictionary.formats.hub import find_location
from monitor.dictionary.formats.plain_relu import GOODFIRE, QRESEARCH
from tests.dictionary.formats import layouts_pickled
from tests.dictionary.formats.refusals import refused


def test_old_pickles_without_a_zip(tmp_path):
    layout = layouts_pickled.goodfire(tmp_path)
    source = tmp_path / layout.source
    expected = read_dictionary(source).autoencoder
    torch.save(torch.load(source, weights_only=True), source, _use_new_zipfile_serialization=False)
    assert torch.equal(read_dictionary(source).autoencoder.encoder, expected.encoder)


def test_names_that_others_use_too_need_a_known_address(tmp_path):
    """The tensors of qresearch are named as those of any two linear layers."""
    source = tmp_path / layouts_pickled.qresearch(tmp_path).source
    assert QRESEARCH.detects(find_location(source))
    renamed = source.parent.parent.parent / "else.pt"
    source.rename(renamed)
    assert not QRESEARCH.detects(find_location(renamed))
    (renamed.parent / "config.json").write_text("{}")
    assert not GOODFIRE.detects(find_location(renamed))


@pytest.mark.parametrize(
    ("name", "layer", "model"),
    [
        ("Llama-3.3-70B-Instruct-SAE-l50.pt", 50, "meta-llama/Llama-3.3-70B-Instruct"),
        ("llama-3.1-8b-instruct_L3.pt", 3, "meta-llama/Llama-3.1-8B-Instruct"),
        ("mine.pt", None, None),
    ],
)
def test_the_files_name_says_layer_and_model(tmp_path, name, layer, model):
    source = tmp_path / layouts_pickled.goodfire(tmp_path).source
    moved = tmp_path / name
    source.rename(moved)
    card = read_dictionary(moved).card
    assert (card.layer, card.model_name) == (layer, model)
    assert card.hook_name == (None if layer is None else f"blocks.{layer}.hook_resid_post")


def test_other_tensors_are_not_read(tmp_path):
    source = tmp_path / layouts_pickled.goodfire(tmp_path).source
    refused(source, "a qresearch dictionary has the tensors decoder.bias", format="qresearch")
