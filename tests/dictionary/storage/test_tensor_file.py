"""Parts of a matrix in a file: the same numbers as of the whole, in every orientation and number type."""

import numpy as np
import pytest
import torch

from monitor.dictionary.formats.files import read_weights
from monitor.errors import DictionaryError


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


def test_an_archive_of_objects_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", W_enc=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DictionaryError, match="not a whole npz archive of numbers"):
        read_weights(tmp_path / "a.npz")
