"""Pairs by name: which there are, what is chosen from what is given, and what is said where parts are missing."""

from dataclasses import replace
from pathlib import Path

import pytest

from monitor.errors import ConfigurationError, DictionaryError, ModelError
from monitor.pairs import registry, tiny
from monitor.pairs.named_pair import NamedPair
from monitor.pairs.registry import chosen_dictionary, chosen_pair, named
from tests.pairs.registered import registered

DIGEST = "sha256:" + "d" * 64


@pytest.fixture
def mine(tmp_path):
    """A pair that lies elsewhere, with weights that come from elsewhere too."""
    (tmp_path / "weights").mkdir()
    (tmp_path / "dictionary").mkdir()
    pair = NamedPair(
        name="mine",
        what="a model of mine, Q4_1",
        licence="none",
        model="Mine-1B",
        weights=lambda: tmp_path / "weights",
        dictionary=tmp_path / "dictionary",
        get="pip install mine",
        digest=DIGEST,
        original="me/Mine-1B",
    )
    with registered(pair):
        yield pair


def test_the_pairs_have_names_and_one_is_the_default():
    assert {"smollm2", "tiny"} <= set(registry.names())
    assert named() is named(registry.DEFAULT)
    assert named("tiny") is tiny.PAIR
    with pytest.raises(ConfigurationError, match=r"there is no pair 'small'. There are smollm2: .*; tiny: "):
        named("small")


def test_a_pair_is_complete_with_its_dictionary_and_its_weights_are_asked_for_after_that(mine):
    assert {"mine", "tiny"} <= set(registry.complete())
    mine.dictionary.rmdir()
    assert "mine" not in registry.complete()
    with (
        registered(replace(mine, weights=lambda: None)),
        pytest.raises(DictionaryError, match="the dictionary of the pair mine is not"),
    ):
        chosen_pair("mine")


def test_every_pair_says_what_it_is_and_whose():
    for name in registry.names():
        pair = named(name)
        assert pair.name == name
        assert "\n" not in pair.what
        assert "Apache-2.0" in pair.licence
        assert pair.dictionary.parent == Path(registry.__file__).parent / name


def test_nothing_given_is_the_default_pair():
    chosen = chosen_pair()
    assert chosen.pair is named()
    assert (chosen.model, chosen.dictionary) == (str(named().model_path()), named().dictionary_path())
    assert chosen_dictionary() == named().dictionary_path()


def test_a_name_gives_model_and_dictionary(mine):
    for chosen in (chosen_pair("mine"), chosen_pair(model="mine")):
        assert (chosen.model, chosen.dictionary, chosen.pair) == (
            str(mine.model_path()),
            mine.dictionary,
            mine,
        )
        assert (chosen.name(DIGEST), chosen.note(DIGEST)) == ("mine", "")
    assert chosen_dictionary("mine") == mine.dictionary


def test_a_model_and_a_dictionary_of_ones_own_have_no_name(tmp_path):
    chosen = chosen_pair(model="org/name", dictionary=tmp_path)
    assert (chosen.model, chosen.dictionary, chosen.pair) == ("org/name", tmp_path, None)
    assert (chosen.name(DIGEST), chosen.note(DIGEST)) == ("", "")
    assert chosen_dictionary(None, tmp_path) == tmp_path


@pytest.mark.parametrize("how", ["by name", "by place"])
def test_other_weights_with_the_dictionary_of_a_pair_are_not_the_pair_and_that_is_said(mine, how):
    given = {"pair": "mine"} if how == "by name" else {"dictionary": str(mine.dictionary)}
    chosen = chosen_pair(model="/models/other.gguf", **given)
    assert chosen.model == "/models/other.gguf"
    assert chosen.name(DIGEST) == "mine", "the same weights in another place are the pair"
    other = "sha256:" + "e" * 64
    assert chosen.name(other) == ""
    note = chosen.note(other)
    assert note.startswith("/models/other.gguf is not the model of the pair mine (a model of mine, Q4_1)")
    assert other[:19] in note
    recheck = "`sae-monitor policy recheck FOLDER --pair mine --model /models/other.gguf`"
    assert f"{recheck} tells whether they hold for this model" in note


@pytest.mark.parametrize("original", ["me/Mine-1B", "/models/mine-1b/"])
def test_the_original_of_a_quantised_model_is_called_that(mine, original):
    note = chosen_pair("mine", original).note("sha256:" + "e" * 64)
    assert note.startswith(f"{original} is the unquantised original of the model of the pair mine")
    assert "locks for mine are refused here" in note


def test_a_pair_that_comes_with_the_package_is_known_by_its_place(tmp_path):
    chosen = chosen_pair(model=tiny.model_path(), dictionary=tiny.dictionary_path())
    assert (chosen.name(DIGEST), chosen.note(DIGEST)) == ("tiny", "")
    other = chosen_pair("tiny", tmp_path)
    assert other.name(DIGEST) == ""
    assert "not the model of the pair tiny" in other.note(DIGEST)


def test_too_much_and_too_little(mine, tmp_path):
    with pytest.raises(
        ConfigurationError, match=r"--pair mine brings its own dictionary, so --dictionary .* leave"
    ):
        chosen_pair("mine", None, tmp_path)
    with pytest.raises(ConfigurationError, match="--pair mine brings its own dictionary"):
        chosen_dictionary("mine", tmp_path)
    with pytest.raises(ConfigurationError, match=r"which dictionary reads org/name\?.* or --pair NAME"):
        chosen_pair(model="org/name")
    with pytest.raises(
        ConfigurationError, match=r"which model does .* read\? Give --model and --dictionary together"
    ):
        chosen_pair(dictionary=tmp_path)


def test_what_is_not_here_is_said_with_the_way_out(mine, tmp_path):
    mine.dictionary.rmdir()
    with pytest.raises(
        DictionaryError, match=r"the dictionary of the pair mine is not in this .* --model and --dict"
    ):
        chosen_pair("mine")
    lacking = NamedPair("far", "far away", "none", "Far", lambda: None, tmp_path, "pip install far")
    with registered(lacking), pytest.raises(ModelError, match="`pip install far` gets them") as caught:
        chosen_pair("far")
    assert "\n" not in str(caught.value)
    assert "`--pair tiny` needs nothing" in str(caught.value)
    with registered(lacking):
        assert chosen_pair("far", tmp_path / "far.gguf").model == str(tmp_path / "far.gguf")


def test_a_pair_can_be_forgotten(mine):
    registry.unregister("mine")
    with pytest.raises(ConfigurationError, match="there is no pair 'mine'"):
        named("mine")
