"""A dictionary's encoder or decoder, in memory and in files: rows, whole and norms."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from monitor.dictionary.formats.files import read_weights
from monitor.dictionary.storage.matrix import Matrix
from monitor.dictionary.storage.tensor_file import FileTensor
from monitor.errors import DictionaryError


def test_whole_and_norms(stored):
    numbers, file = stored
    expected = numbers.double().T * torch.arange(9000).unsqueeze(1)
    matrix = Matrix(file, "m", transposed=True).times(torch.arange(9000.0))
    assert matrix.shape == (9000, 37)
    torch.testing.assert_close(matrix.whole().double(), expected.double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(matrix.norms().double(), expected.norm(dim=1), rtol=1e-6, atol=0)
    assert torch.equal(matrix.rows([4, 8999]), matrix.whole()[[4, 8999]])


@pytest.mark.parametrize("feature", [-1, 37])
def test_a_feature_that_does_not_exist_reads_no_neighbour(stored, feature):
    with pytest.raises(IndexError, match="features 0 to 36"):
        Matrix(stored[1], "m").rows([feature])


def test_a_row_that_is_not_finite(tmp_path):
    numbers = torch.ones(4, 5)
    numbers[2, 3] = float("inf")
    save_file({"m": numbers}, tmp_path / "a.safetensors")
    matrix = Matrix(read_weights(tmp_path / "a.safetensors")["m"], "the encoder")
    assert torch.equal(matrix.rows([0, 1]), numbers[:2])
    with pytest.raises(DictionaryError, match="the encoder holds values that are not finite"):
        matrix.rows([2])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_archives(tmp_path, save):
    plain = np.arange(12, dtype=np.float32).reshape(3, 4)
    save(tmp_path / "a.npz", plain=plain, turned=np.asfortranarray(plain), half=plain.astype(np.float16))
    found = read_weights(tmp_path / "a.npz")
    assert isinstance(found["plain"], FileTensor) == (save is np.savez)
    for name in ("plain", "turned", "half"):
        assert torch.equal(Matrix(found[name], name).whole(), torch.from_numpy(plain))


@pytest.mark.parametrize("transposed", [False, True])
def test_in_memory(transposed):
    numbers = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    matrix = Matrix(numbers.T.contiguous() if transposed else numbers, "m", transposed)
    assert (matrix.shape, matrix.lazy, matrix.nbytes) == ((5, 3), False, 60)
    assert torch.equal(matrix.whole(), numbers)
    assert matrix.whole().is_contiguous()
    assert torch.equal(matrix.rows([4, 0, 4]), numbers[[4, 0, 4]])
    torch.testing.assert_close(matrix.norms(), numbers.norm(dim=1))


def test_factors_multiply_and_may_be_one_number_or_one_each():
    numbers = torch.ones(3, 2)
    each = torch.tensor([1.0, -2.0, 3.0])
    matrix = Matrix(numbers, "m").times(2).times(each)
    expected = numbers * 2 * each.unsqueeze(1)
    assert torch.equal(matrix.whole(), expected)
    assert torch.equal(matrix.rows([1]), expected[[1]])
    torch.testing.assert_close(matrix.norms(), expected.norm(dim=1))
    assert torch.equal(Matrix(numbers, "m").whole(), numbers), "the matrix itself stays as it was"
