"""A saved dictionary that tests damage."""

import pytest

from monitor.dictionary.formats import DictionaryCard, save_saelens
from monitor.dictionary.sae import Activation
from tests.dictionary.formats.saes import make


@pytest.fixture
def folder(tmp_path):
    save_saelens(tmp_path / "sae", make(Activation.JUMPRELU), DictionaryCard())
    return tmp_path / "sae"
