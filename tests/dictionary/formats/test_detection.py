"""Which format files have, and the errors where that is unclear or the files cannot be read."""

from __future__ import annotations

import shutil

import pytest
import torch

from monitor.dictionary.formats import FORMATS, READERS, find_location, read_dictionary
from tests.dictionary.formats import layouts, layouts_pickled
from tests.dictionary.formats.layouts import write_safetensors
from tests.dictionary.formats.refusals import refused
from tests.dictionary.formats.test_families import MAKERS


@pytest.mark.parametrize("name", MAKERS)
def test_one_reader_and_no_other(tmp_path, name):
    layout = MAKERS[name](tmp_path)
    place = find_location(tmp_path / layout.source)
    assert [reader.name for reader in READERS if reader.detects(place)] == [layout.family]


def test_two_families_in_one_folder(tmp_path):
    source = tmp_path / layouts.sparsify(tmp_path).source
    other = tmp_path / layouts.gemma_scope(tmp_path).source
    shutil.copy(other / "params.npz", source / "params.npz")
    said = refused(source, "could be a dictionary of more than one format")
    for part in (
        "Found: cfg.json, params.npz, sae.safetensors",
        "sparsify wants cfg.json",
        "gemma-scope wants params.npz",
    ):
        assert part in said
    assert "--dictionary-format" in said
    assert read_dictionary(source, format="sparsify").format == "sparsify"


def test_nothing_known(tmp_path):
    write_safetensors(tmp_path / "weights.safetensors", {"a": torch.zeros(2)})
    (tmp_path / "notes.txt").write_text("hello")
    said = refused(tmp_path, "has no dictionary of a known format. Found: notes.txt, weights.safetensors")
    assert all(f"\n  {name}: " in said for name in FORMATS)
    refused(tmp_path, "has no cfg.json", format="saelens")
    refused(tmp_path, "there is no dictionary format 'mine'; the formats are: saelens", format="mine")


def test_a_repository_of_many(tmp_path):
    layouts.gemma_scope(tmp_path)
    root = tmp_path / "google/gemma-scope-2b-pt-res/layer_20"
    refused(root, "in its subfolders: name one of them. Found: width_16k/average_l0_71")


def test_many_files(tmp_path):
    source = (tmp_path / layouts_pickled.qwen_scope(tmp_path).source).parent
    refused(
        source,
        "several weights files .layer12.sae.pt, layer13.sae.pt.: name the file, as in .*/layer12.sae.pt",
    )


@pytest.mark.parametrize("name", ["goodfire", "openai", "qwen-scope"])
def test_a_pickle_that_is_cut_short(tmp_path, name):
    source = tmp_path / MAKERS[name](tmp_path).source
    source.write_bytes(source.read_bytes()[:-200])
    refused(source, "not a whole PyTorch file|holds more than tensors")
