"""Files of Qwen Scope: k, model and layer stand in names alone."""

from __future__ import annotations

import pytest

from monitor.dictionary.bundle import load_dictionary
from monitor.dictionary.formats import read_dictionary
from monitor.dictionary.formats.hub import find_location
from monitor.dictionary.formats.qwen_scope import QwenScopeReader
from tests.dictionary.formats import layouts_pickled
from tests.dictionary.formats.refusals import refused


def test_qwen_without_its_repository_name(tmp_path):
    source = tmp_path / layouts_pickled.qwen_scope(tmp_path).source
    source.rename(tmp_path / "layer12.sae.pt")
    refused(tmp_path / "layer12.sae.pt", "is stated only in the repository's name")


def test_k_of_a_folder_name_is_part_of_the_digest(tmp_path):
    layout = layouts_pickled.qwen_scope(tmp_path)
    other = tmp_path / "Qwen" / "SAE-Res-Qwen3-1.7B-Base-W32K-L0_25"
    (tmp_path / layout.source).parent.rename(other)
    assert load_dictionary(other / "layer12.sae.pt").autoencoder.k == 25
    before = load_dictionary(other / "layer12.sae.pt").digest
    other.rename(other.parent / "SAE-Res-Qwen3-1.7B-Base-W32K-L0_26")
    assert (
        load_dictionary(other.parent / "SAE-Res-Qwen3-1.7B-Base-W32K-L0_26" / "layer12.sae.pt").digest
        != before
    )


@pytest.mark.parametrize(
    ("name", "taken"), [("layer3.sae.pt", True), ("layer.sae.pt", False), ("layer3.pt", False)]
)
def test_only_files_of_this_name_are_taken(tmp_path, name, taken):
    (tmp_path / name).write_bytes(b"")
    assert QwenScopeReader().detects(find_location(tmp_path / name)) is taken


def test_names_are_the_record_of_k_model_and_layer(tmp_path):
    found = read_dictionary(tmp_path / layouts_pickled.qwen_scope(tmp_path).source)
    assert (found.card.model_name, found.card.hook_name) == ("Qwen/Qwen3-1.7B-Base", "model.layers.12")
    assert (found.card.l0, found.facts, found.autoencoder.k) == (50.0, ("k=50",), 50)
