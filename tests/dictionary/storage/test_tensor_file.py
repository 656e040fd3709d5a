"""Parts of a matrix in a file: the same numbers as of the whole, in every orientation and number type."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from monitor.dictionary.formats.files import read_weights
from monitor.dictionary.storage.matrix import Matrix
from monitor.dictionary.storage.tensor_file import FileTensor
from monitor.errors import DictionaryError

SHAPE = (37, 9000)
"""Wide enough that single columns are picked rather than all of it read."""


@pytest.fixture(params=[torch.bfloat16, torch.float16, torch.float32, torch.float64])
def stored(request, tmp_path):
    numbers = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)).to(request.param)
    save_file({"before": torch.ones(3), "matrix": numbers}, tmp_path / "a.safetensors")
    return numbers, read_weights(tmp_path / "a.safetensors")["matrix"]


@pytest.mark.parametrize("indices", [[0], [36], [5, 2, 3, 4, 30], []])
def test_rows(stored, indices):
    numbers, file = stored
    assert torch.equal(file.rows(indices), numbers[indices])


@pytest.mark.parametrize(
    "indices", [[0], [8999], [5, 2, 3, 4, 8000], list(range(100, 300)), list(range(0, 9000, 3))]
)
def test_columns(stored, indices):
    numbers, file = stored
    assert torch.equal(file.columns(indices), numbers[:, indices])


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


def test_a_file_that_shrank(stored):
    file = stored[1]
    with file.path.open("r+b") as opened:
        opened.truncate(file.offset + file.nbytes - 1)
    for read in (file.read, lambda: file.rows([36]), lambda: file.columns([8999])):
        with pytest.raises(DictionaryError, match="cut short"):
            read()
    file.path.unlink()
    with pytest.raises(DictionaryError, match="can no longer be read"):
        file.read()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_archives(tmp_path, save):
    plain = np.arange(12, dtype=np.float32).reshape(3, 4)
    save(tmp_path / "a.npz", plain=plain, turned=np.asfortranarray(plain), half=plain.astype(np.float16))
    found = read_weights(tmp_path / "a.npz")
    assert isinstance(found["plain"], FileTensor) == (save is np.savez)
    for name in ("plain", "turned", "half"):
        assert torch.equal(Matrix(found[name], name).whole(), torch.from_numpy(plain))


def test_an_archive_of_objects_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", W_enc=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DictionaryError, match="not a whole npz archive of numbers"):
        read_weights(tmp_path / "a.npz")
