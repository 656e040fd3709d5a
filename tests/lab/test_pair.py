"""A pair that is opened for looking at features: its tokens, and what is said where something is missing."""

import dataclasses
import shutil

import pytest
import torch

from monitor.dictionary.formats import DictionaryCard, save_saelens
from monitor.dictionary.sae import Activation
from monitor.errors import ConfigurationError, DictionaryError, InputError, NotFound
from monitor.lab.pair import (
    feature_card,
    need_feature,
    need_statistics,
    open_dictionary,
    open_labels,
    open_pair,
)
from monitor.pairs import tiny
from monitor.pairs.named_pair import NamedPair
from tests.dictionary.formats.saes import make
from tests.pairs.registered import registered


def test_the_bundled_pair(opened):
    assert repr(opened).startswith("Pair('")
    assert f"layer {opened.harvester.layer} of {len(opened.loaded.layers)}" in repr(opened)
    assert opened.dictionary.autoencoder.d_model == opened.loaded.d_model
    assert opened.dictionary.statistics is not None


def test_texts_begin_as_the_tokenizer_begins_them_and_end_with_the_context(opened):
    ids = opened.ids("a calm day")
    assert opened.bos == opened.loaded.tokenizer.bos_token_id == ids[0]
    assert opened.speller.pieces(ids[1:]) == [opened.loaded.tokenizer.decode([i]) for i in ids[1:]]
    assert len(opened.ids("word " * 5000)) == opened.loaded.context
    assert opened.all_ids(["a calm day", "b"], "texts")[0] == ids
    with pytest.raises(InputError, match="texts: text 2 has no token to read; give longer texts"):
        opened.all_ids(["a", ""], "texts")


def test_residuals_are_those_of_the_dictionarys_layer(opened):
    ids = torch.tensor([opened.ids("a calm day")])
    hidden = opened.loaded.model(ids, output_hidden_states=True).hidden_states
    torch.testing.assert_close(opened.residuals(ids), hidden[opened.harvester.layer + 1].detach())


def test_the_unembedding_gives_the_models_own_logits(opened):
    ids = torch.tensor([opened.ids("a calm day")])
    model = opened.loaded.model
    seen = []
    handle = opened.loaded.layers[-1].register_forward_hook(lambda _m, _a, out: seen.append(out))
    with torch.no_grad():
        logits = model(ids).logits
        handle.remove()
        last = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
        unembedding = opened.unembedding
        found = unembedding.head(unembedding.norm(last.float()))
    torch.testing.assert_close(found, logits.float(), atol=1e-3, rtol=1e-3)


def test_both_are_named_or_neither_or_a_pair():
    for one in ({"model": "a"}, {"dictionary": "b"}):
        with pytest.raises(ConfigurationError, match="--model and --dictionary together, or --pair NAME"):
            open_pair(**one)
    with pytest.raises(ConfigurationError, match="--pair tiny brings its own dictionary"):
        open_pair(pair="tiny", dictionary="b")
    with pytest.raises(ConfigurationError, match="there is no pair 'small'"):
        open_pair(pair="small")


def test_a_pair_is_opened_by_its_name_alone(opened):
    for found in (open_pair("tiny", device="cpu"), open_pair(pair="tiny", device="cpu")):
        assert (found.name, found.loaded.digest) == ("tiny", opened.loaded.digest)
        assert found.dictionary.digest == opened.dictionary.digest
    assert open_dictionary(pair="tiny").digest == opened.dictionary.digest


def test_a_pair_that_lies_elsewhere_is_opened_by_its_name_and_its_weights_are_known_by_digest(
    opened, tmp_path
):
    shutil.copytree(tiny.model_path(), tmp_path / "weights")
    pair = NamedPair(
        name="mine",
        what="the tiny pair, elsewhere",
        licence="Apache-2.0",
        model="Mine",
        weights=lambda: tmp_path / "weights",
        dictionary=shutil.copytree(tiny.dictionary_path(), tmp_path / "dictionary"),
        digest=opened.loaded.digest,
        original="me/model",
    )
    with registered(pair):
        assert open_pair("mine", device="cpu").name == "mine"
        assert open_pair(pair="mine", model=tiny.model_path(), device="cpu").name == "mine"
        (tmp_path / "weights" / "chat_template.jinja").write_text("{{ messages[0].content }}")
        told = []
        other = open_pair(pair="mine", device="cpu", tell=told.append)
        assert other.name == ""
        (note,) = told
        assert f"of the digest {other.loaded.digest[:19]}" in note
        with pytest.warns(UserWarning, match="is the unquantised original of the model of the pair mine"):
            open_pair(tiny_named(tmp_path), pair.dictionary, device="cpu")


def tiny_named(folder):
    """Another model of the name of the original."""
    model = shutil.copytree(folder / "weights", folder / "model")
    (model / "chat_template.jinja").write_text("{{ messages[-1].content }}")
    return model


@pytest.fixture
def bare(tmp_path):
    """A dictionary of which nothing was measured."""
    save_saelens(tmp_path, make(Activation.RELU), DictionaryCard())
    return open_dictionary(tmp_path)


def test_what_a_dictionary_lacks_is_said_with_the_command_that_writes_it(bare, opened):
    assert need_statistics(opened.dictionary) is opened.dictionary.statistics
    with pytest.raises(
        DictionaryError, match="no feature statistics; write them with `sae-monitor dictionary describe`"
    ):
        need_statistics(bare)
    with pytest.raises(NotFound, match="feature 40 does not exist; the dictionary has features 0 to 39"):
        need_feature(bare, 40)
    with pytest.raises(NotFound):
        need_feature(bare, -1)
    assert need_feature(bare, 39) == 39


def test_cards_and_labels_are_those_of_this_dictionary(opened):
    card = feature_card(opened.dictionary, 7)
    assert card.feature == 7
    assert open_labels(opened.dictionary).dictionary_digest in ("", opened.dictionary.digest)
    other = dataclasses.replace(opened.dictionary, digest="sha256:other")
    with pytest.raises(
        DictionaryError, match=r"are of another dictionary .* run `sae-monitor dictionary describe`"
    ):
        feature_card(other, 7)
