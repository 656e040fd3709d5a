"""A pair that is opened for looking at features: its tokens, and what is said where something is missing."""

import dataclasses

import pytest
import torch

from monitor.dictionary.formats import DictionaryCard, save_saelens
from monitor.dictionary.sae import Activation
from monitor.errors import DictionaryError, InputError, NotFound
from monitor.lab.pair import (
    feature_card,
    need_feature,
    need_statistics,
    open_dictionary,
    open_labels,
    open_pair,
)
from tests.dictionary.formats.saes import make


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


def test_both_are_named_or_neither():
    for one in ({"model": "a"}, {"dictionary": "b"}):
        with pytest.raises(InputError, match="give --model and --dictionary together, or neither"):
            open_pair(**one)


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
