"""Policy sets over a dictionary that stays in its files: read before anybody is locked out, in one pass, and let go."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from monitor.dictionary.formats import read_dictionary
from monitor.dictionary.storage.matrix import Matrix
from monitor.dictionary.storage.stored_autoencoder import StoredAutoencoder
from monitor.errors import ConfigurationError
from monitor.model.tap.bank import FeatureBank
from tests.dictionary.formats import layouts
from tests.dictionary.formats.layouts import FEATURES


class Reading:
    """A dictionary in its files, and each time that rows of its encoder were read."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        found = read_dictionary(folder / layouts.gemma_scope_2(folder).source, large=0).autoencoder
        assert isinstance(found, StoredAutoencoder)
        self.sae = found
        self.bank = FeatureBank(found, torch.ones(FEATURES), [1, 2], spare=2, reserve=4)
        self.read: list[list[int]] = []
        self.meanwhile = lambda: None
        matrix, rows = found.matrices["encoder"], type(found.matrices["encoder"]).rows

        def noted(this: Matrix, features: list[int]) -> torch.Tensor:
            if this is matrix:
                self.read.append(list(features))
                self.meanwhile()
            return rows(this, features)

        monkeypatch.setattr(type(matrix), "rows", noted)


@pytest.fixture
def reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reading:
    return Reading(tmp_path, monkeypatch)


def test_what_is_new_is_read_in_one_pass(reading: Reading) -> None:
    reading.bank.hold([2, 9, 5, 7])
    assert reading.read == [[5, 7, 9]]
    expected = reading.sae.row(7).encoder
    assert torch.equal(reading.bank.encoder[reading.bank.slot(7)], expected)
    assert not reading.sae._fetched


def test_requests_come_and_go_while_it_is_read(reading: Reading) -> None:
    passed = []

    def comes_and_goes() -> None:
        reading.bank.acquire([1, 2])
        reading.bank.release([1, 2])
        passed.append(True)

    def meanwhile() -> None:
        other = threading.Thread(target=comes_and_goes, daemon=True)
        other.start()
        other.join(30)

    reading.meanwhile = meanwhile
    reading.bank.hold([5, 7])
    assert passed, "the slots were locked while files were read"


def test_a_set_that_does_not_fit_is_not_read(reading: Reading) -> None:
    with pytest.raises(ConfigurationError, match="reload_features"):
        reading.bank.hold([3, 4, 5, 6, 7])
    assert reading.read == []


def test_what_was_read_for_a_set_that_is_refused_is_let_go(reading: Reading) -> None:
    reading.bank._maximum[7] = 0
    with pytest.raises(Exception, match="never active"):
        reading.bank.hold([5, 7])
    assert not reading.sae._fetched
