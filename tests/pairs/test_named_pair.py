"""A pair with a name: its parts, and what is said where one is not here."""

import pytest

from monitor.errors import DictionaryError, ModelError
from monitor.pairs.named_pair import NamedPair


def test_its_parts_are_where_it_says(tmp_path):
    pair = NamedPair("mine", "a model of mine", "none", "Mine", lambda: tmp_path / "model", tmp_path)
    assert (pair.model_path(), pair.dictionary_path()) == (tmp_path / "model", tmp_path)


def test_what_is_missing_is_said_in_one_line_with_what_to_do(tmp_path):
    pair = NamedPair(
        "mine", "a model of mine", "none", "Mine", lambda: None, tmp_path / "none", "pip install it"
    )
    with pytest.raises(ModelError) as caught:
        pair.model_path()
    assert str(caught.value) == (
        "the weights of the pair mine (a model of mine) are not on this machine: `pip install it` gets them, or give a "
        "file with --model; `--pair tiny` needs nothing"
    )
    with pytest.raises(DictionaryError, match="`pip install sae-monitor-pairs` gets it"):
        pair.dictionary_path()


def test_weights_that_come_with_the_dictionary_are_got_with_it(tmp_path):
    pair = NamedPair("mine", "a model of mine", "none", "Mine", lambda: None, tmp_path / "none")
    with pytest.raises(ModelError, match=r"on this machine: `pip install sae-monitor-pairs` gets them$"):
        pair.model_path()
