"""The contents of one weights file, taken out as matrices, vectors and numbers."""

import re

import pytest
import torch
from safetensors.torch import save_file

from monitor.dictionary.formats.tensors import Tensors
from monitor.errors import DictionaryError


@pytest.fixture
def stored(tmp_path):
    draw = torch.Generator().manual_seed(0)
    kept = {
        "encoder": torch.randn(3, 2, generator=draw),
        "decoder": torch.randn(2, 3, generator=draw),
        "bias": torch.tensor([1.0, 2.0, 3.0], dtype=torch.float16),
        "one": torch.tensor([0.5]),
        "bad": torch.tensor([1.0, float("inf"), 0.0]),
    }
    save_file(kept, tmp_path / "w.safetensors")
    return kept, Tensors(tmp_path / "w.safetensors")


def refused(message, call, *arguments, **options):
    with pytest.raises(DictionaryError, match=message):
        call(*arguments, **options)


def test_names_that_are_missing_or_unknown(stored):
    _, tensors = stored
    tensors.require(("encoder", "decoder", "bias"), ("one", "bad"), kind="a dictionary")
    missing = "a test has the tensors encoder, gate; missing here: gate; unknown: bad, bias, decoder, one"
    refused(re.escape(missing), tensors.require, ("encoder", "gate"), kind="a test")


def test_matrices_either_way_round(stored):
    kept, tensors = stored
    encoder = tensors.matrix("encoder")
    decoder = tensors.matrix("decoder", transposed=True, like=encoder)
    assert torch.equal(encoder.whole(), kept["encoder"])
    assert torch.equal(decoder.whole(), kept["decoder"].T)
    refused(
        "decoder has 2 features of width 3, and .*encoder has 3 of width 2",
        tensors.matrix,
        "decoder",
        like=encoder,
    )
    refused(r"bias has shape \(3,\); it must have 2 dimensions", tensors.matrix, "bias")
    refused("has no tensor gate; it has bad, bias, decoder, encoder, one", tensors.matrix, "gate")


def test_vectors_are_float32_and_finite(stored):
    _, tensors = stored
    found = tensors.vector("bias", 3)
    assert (found.dtype, found.tolist()) == (torch.float32, [1.0, 2.0, 3.0])
    refused(r"bias has shape \(3,\); it must be \(4,\)", tensors.vector, "bias", 4)
    refused("bad holds values that are not finite", tensors.vector, "bad", 3)


def test_one_number_for_all_features_or_one_each(stored):
    _, tensors = stored
    assert tensors.per_feature("one", 4).tolist() == [0.5] * 4
    assert tensors.per_feature("bias", 3).tolist() == [1.0, 2.0, 3.0]
    refused("bias must be one number", tensors.per_feature, "bias", 4)


def test_numbers_of_pickled_files_may_be_plain(tmp_path):
    torch.save({"k": 7, "flag": True, "t": torch.tensor(2.5), "name": "relu"}, tmp_path / "w.pt")
    tensors = Tensors(tmp_path / "w.pt")
    assert [tensors.number("k"), tensors.number("t")] == [7.0, 2.5]
    assert (tensors.plain("name"), tensors.plain("missing", 3)) == ("relu", 3)
    for name in ("flag", "name", "missing"):
        refused(f"{name} must be one number", tensors.number, name)
