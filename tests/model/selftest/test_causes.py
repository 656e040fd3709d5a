from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from monitor.dictionary.formats.card import DictionaryCard
from monitor.model.selftest.causes import ADVICE, Cause, evidence
from tests.model.planted import rounded
from tests.model.tiny import WIDTH, dictionary, loaded_model

CARD = DictionaryCard()


@pytest.fixture(scope="module")
def loaded():
    return loaded_model()


def seen(loaded, sae=None, card=CARD, bos=0, model=None, layer=None):
    return evidence(
        sae or dictionary(),
        card,
        model or loaded.model,
        layer if layer is not None else loaded.layers[1],
        bos,
    )


def test_a_pair_that_is_right_shows_nothing(loaded):
    assert seen(loaded) == frozenset()
    assert seen(loaded, dictionary("relu")) == frozenset()


@pytest.mark.parametrize(
    ("field", "cause"),
    [
        ("threshold", Cause.THRESHOLD),
        ("encoder_bias", Cause.ENCODER_BIAS),
        ("decoder_bias", Cause.DECODER_BIAS),
    ],
)
def test_what_is_zero_everywhere_may_have_been_dropped(loaded, field, cause):
    sae = dictionary("jumprelu")
    empty = torch.zeros_like(getattr(sae, field))
    assert seen(loaded, replace(sae, **{field: empty})) == {cause}
    empty[-1] = 0.5
    assert seen(loaded, replace(sae, **{field: empty})) == frozenset()


@pytest.mark.parametrize(
    ("wanted", "bos", "found"),
    [
        (True, None, {Cause.NO_BOS}),
        (False, 0, {Cause.EXTRA_BOS}),
        (True, 0, set()),
        (False, None, set()),
        (None, None, set()),
        (None, 0, set()),
    ],
)
def test_bos_of_the_tokenizer_against_that_of_the_card(loaded, wanted, bos, found):
    assert seen(loaded, card=DictionaryCard(prepend_bos=wanted), bos=bos) == found


@pytest.mark.parametrize("name", ["encoder", "decoder"])
def test_a_dictionary_with_few_distinct_weights_is_coarse(loaded, name):
    sae = dictionary()
    few = rounded(getattr(sae, name), 3)
    assert seen(loaded, replace(sae, **{name: few})) == {Cause.COARSE_DICTIONARY}
    many = rounded(getattr(sae, name), 12)
    assert seen(loaded, replace(sae, **{name: many})) == frozenset()


def test_some_coarse_rows_do_not_make_a_dictionary_coarse(loaded):
    sae = dictionary()
    encoder = sae.encoder.clone()
    encoder[: len(encoder) // 3] = 0.0
    assert seen(loaded, replace(sae, encoder=encoder)) == frozenset()


def test_a_model_is_coarse_where_its_configuration_or_its_weights_say_so(loaded):
    config = SimpleNamespace(quantization_config={"bits": 4})
    assert seen(loaded, model=SimpleNamespace(config=config)) == {Cause.COARSE_MODEL}
    layer = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH))
    assert seen(loaded, layer=layer) == frozenset()
    layer[0].weight.data = rounded(layer[0].weight.data, 3)
    assert seen(loaded, layer=layer) == {Cause.COARSE_MODEL}
    whole = nn.Module()
    whole.register_parameter("packed", nn.Parameter(torch.ones(4, 4, dtype=torch.uint8), requires_grad=False))
    assert seen(loaded, layer=whole) == {Cause.COARSE_MODEL}


def test_several_causes_are_seen_at_once(loaded):
    sae = replace(dictionary("jumprelu"), threshold=torch.zeros(96), encoder_bias=torch.zeros(96))
    assert seen(loaded, sae, DictionaryCard(prepend_bos=True), None) == {
        Cause.THRESHOLD,
        Cause.ENCODER_BIAS,
        Cause.NO_BOS,
    }


def test_every_cause_has_advice():
    assert set(ADVICE) == set(Cause)
    assert all(ADVICE.values())
