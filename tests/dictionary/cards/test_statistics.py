from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from monitor.dictionary.cards.statistics import FILE, FeatureStatistics, load, save
from monitor.errors import DictionaryError


def _statistics(**changed) -> FeatureStatistics:
    values = {
        "maximum": torch.tensor([2.0, 0.0, 0.5]),
        "density": torch.tensor([0.25, 0.0, 1.0]),
        "tokens": 8,
        "corpus": "two books",
        "dictionary_digest": "sha256:" + "0" * 64,
    }
    return FeatureStatistics(**(values | changed))


def test_a_saved_file_reads_back_the_same(tmp_path):
    wrote = _statistics()
    save(tmp_path, wrote)
    read = load(tmp_path)
    assert read is not None
    assert torch.equal(read.maximum, wrote.maximum)
    assert torch.equal(read.density, wrote.density)
    assert (read.tokens, read.corpus, read.dictionary_digest) == (8, "two books", wrote.dictionary_digest)
    assert [read.alive(i) for i in range(3)] == [True, False, True]


def test_a_folder_without_statistics_has_none(tmp_path):
    assert load(tmp_path) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"density": torch.tensor([0.1, 0.2])},
        {"maximum": torch.tensor([1.0, -1.0, 0.0])},
        {"maximum": torch.tensor([1.0, float("nan"), 0.0])},
        {"density": torch.tensor([0.1, 0.2, 1.5])},
        {"tokens": 0},
    ],
)
def test_numbers_that_cannot_be_are_refused(changed):
    with pytest.raises(DictionaryError, match="statistics"):
        _statistics(**changed)


def test_a_foreign_file_is_refused(tmp_path):
    save_file({"maximum": torch.zeros(2)}, tmp_path / FILE)
    with pytest.raises(DictionaryError, match="dictionary describe"):
        load(tmp_path)
    (tmp_path / FILE).write_bytes(b"not a safetensors file")
    with pytest.raises(DictionaryError, match="not a statistics file"):
        load(tmp_path)
