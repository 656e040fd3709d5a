"""What several readers use: the only weights file, numbers in paths, numbers in configurations."""

import pytest
import torch
from safetensors.torch import save_file

from monitor.dictionary.formats.common import names_inside, number_in, pickled, positive, single, whole
from monitor.dictionary.formats.location import local_folder
from monitor.errors import DictionaryError


def test_the_only_weights_file(tmp_path):
    save_file({"a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "one.safetensors")
    assert single(local_folder(tmp_path), "one file") == "one.safetensors"
    assert names_inside(local_folder(tmp_path)) == {"a", "b"}
    save_file({"c": torch.ones(1)}, tmp_path / "two.safetensors")
    with pytest.raises(
        DictionaryError, match=r"exactly one weights file; .*/FILE. This format wants one file"
    ):
        single(local_folder(tmp_path), "one file")
    assert names_inside(local_folder(tmp_path)) == frozenset()
    assert single(local_folder(tmp_path / "two.safetensors"), "") == "two.safetensors"


@pytest.mark.parametrize(
    ("address", "found"), [("/layer_3/width_16k/layer_12", 12), ("/layer_x", None), ("layer_007", 7)]
)
def test_the_last_number_of_a_path(address, found):
    assert number_in(address, r"layer_(\d+)") == found


@pytest.mark.parametrize("value", [0, -1, 2.0, True, "3", None])
def test_whole_numbers(value):
    assert whole({"k": 3}, "k", "cfg.json") == 3
    with pytest.raises(DictionaryError, match=r"^cfg.json: k is .* whole number of at least 1"):
        whole({"k": value}, "k", "cfg.json")


@pytest.mark.parametrize("value", [0, -0.5, float("nan"), False, "3", None])
def test_positive_numbers(value):
    assert positive(2, "norm", "cfg.json") == 2.0
    with pytest.raises(DictionaryError, match=r"^cfg.json: norm is .* a number above 0"):
        positive(value, "norm", "cfg.json")


def test_which_files_are_pickled():
    assert [pickled(name) for name in ("a.pt", "a.pth", "a.npz", "a.safetensors")] == [
        True,
        True,
        False,
        False,
    ]
