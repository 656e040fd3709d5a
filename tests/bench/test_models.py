"""The subjects that are measured: the bundled pair, and a random one whose dictionary is as sparse as a trained one."""

import pytest
import torch

from monitor.bench.models import _tokenizer, demo, random_llama
from monitor.dictionary.bundle import load_dictionary
from monitor.pairs.tiny import dictionary_path


def test_the_bundled_pair_with_its_units():
    found = demo("cpu", "auto")
    bundled = load_dictionary(dictionary_path())
    assert (found.name, found.layer) == ("demo", bundled.card.layer)
    assert torch.equal(found.maximum, bundled.statistics.maximum)
    assert found.autoencoder.d_model == found.loaded.d_model


def test_every_id_has_a_word():
    tokenizer = _tokenizer(100)
    assert len(tokenizer) == 100
    assert tokenizer.decode([3, 97]).split() == ["w3", "w97"]


@pytest.mark.slow
def test_a_random_dictionary_is_about_as_sparse_as_a_trained_one():
    found = random_llama("cpu", "auto", features=2048)
    ids = torch.randint(0, 32000, (2, 32))
    with torch.no_grad():
        states = found.loaded.model(ids, output_hidden_states=True).hidden_states[found.layer + 1]
    active = (found.autoencoder.encode(states[:, 1:].float()) > 0).sum(-1).float().mean()
    assert 16 < float(active) < 256
    assert found.maximum.shape == (2048,)
    assert bool((found.maximum > found.autoencoder.threshold).all())
