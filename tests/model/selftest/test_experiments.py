from dataclasses import replace

import pytest
import torch

from monitor.dictionary.formats.card import DictionaryCard
from monitor.dictionary.sae import Activation, InputNorm
from monitor.model.selftest.causes import Cause
from monitor.model.selftest.expected import Expected, ExpectedSource, expected_of, far
from monitor.model.selftest.experiments import try_arithmetic
from monitor.model.selftest.measurement import measure
from tests.model.planted import as_relu, as_topk, scaled, zero_thresholds
from tests.model.selftest.numbers import RECORD, random_rows
from tests.model.tiny import WIDTH, dictionary

UNKNOWN = Expected(ExpectedSource.NONE)


@pytest.fixture(scope="module")
def rows():
    return random_rows(400)


def right(rows, sae):
    """What is expected of a dictionary that is read as it should be."""
    return expected_of(DictionaryCard(), replace(RECORD, measured=measure(rows, sae)), "float32")


def by_cause(rows, sae, expected):
    found = {}
    for one in try_arithmetic(rows, sae, expected):
        found.setdefault(one.cause, []).append(one)
    return found


def plain(**more):
    """A JumpReLU dictionary that subtracts nothing from its input."""
    return replace(dictionary("jumprelu"), input_bias=None, **more)


@pytest.mark.parametrize(
    ("wrong", "cause"),
    [
        (zero_thresholds, Cause.THRESHOLD),
        (scaled(0.5), Cause.SCALING),
        (scaled(1.7), Cause.SCALING),
        (lambda sae: replace(sae, input_norm=InputNorm.LAYER_NORM), Cause.SCALING),
        (lambda sae: replace(sae, input_bias=sae.decoder_bias), Cause.INPUT_BIAS),
        (lambda sae: replace(sae, encoder=sae.decoder, decoder=sae.encoder), Cause.SWAPPED),
        (lambda sae: replace(sae, encoder_bias=sae.encoder_bias + 0.4), Cause.ENCODER_BIAS),
    ],
    ids=["threshold", "halved", "larger", "norm", "input bias", "swapped", "encoder bias"],
)
def test_undoing_a_mistake_brings_the_numbers_nearer_than_they_were(rows, wrong, cause):
    sae = plain()
    expected, broken = right(rows, sae), wrong(sae)
    best = min(far(one.measured, expected) for one in by_cause(rows, broken, expected)[cause])
    assert best < 0.6 * far(measure(rows, broken), expected)


@pytest.mark.parametrize(
    ("wrong", "cause"),
    [
        (scaled(0.5), Cause.SCALING),
        (lambda sae: replace(sae, input_bias=sae.decoder_bias), Cause.INPUT_BIAS),
        (lambda sae: replace(sae, encoder=sae.decoder, decoder=sae.encoder), Cause.SWAPPED),
        (lambda sae: replace(sae, encoder_bias=sae.encoder_bias + 0.4), Cause.ENCODER_BIAS),
    ],
    ids=["halved", "input bias", "swapped", "encoder bias"],
)
def test_a_mistake_that_can_be_undone_exactly_is(rows, wrong, cause):
    sae = plain()
    expected = right(rows, sae)
    assert min(far(one.measured, expected) for one in by_cause(rows, wrong(sae), expected)[cause]) <= 1


def test_the_decoder_bias_that_fits_best_does_not_depend_on_the_one_that_is_there(rows):
    sae = plain()
    biases = (sae.decoder_bias, torch.zeros(WIDTH), sae.decoder_bias * 9)
    several = [replace(sae, decoder_bias=bias) for bias in biases]
    fitted = [
        by_cause(rows, one, UNKNOWN)[Cause.DECODER_BIAS][0].measured.explained_variance for one in several
    ]
    assert fitted == pytest.approx([fitted[0]] * 3, rel=1e-4)
    assert fitted[0] > max(measure(rows, one).explained_variance for one in several)


def test_topk_that_was_read_as_relu_is_found_by_its_l0(rows):
    sae = replace(as_topk(plain()), k=12)
    expected = right(rows, sae)
    (found,) = by_cause(rows, as_relu(sae), expected)[Cause.TOPK]
    assert (found.what, found.fitted) == ("as TopK with k = 12", False)
    assert far(found.measured, expected) == 0
    (other,) = by_cause(rows, as_relu(sae), replace(expected, l0=12.3))[Cause.TOPK]
    assert other.fitted


def test_what_was_tried_is_measured(rows):
    sae, expected = plain(), right(rows, plain())
    found = by_cause(rows, sae, expected)
    (swapped,), (bias,) = found[Cause.SWAPPED], found[Cause.INPUT_BIAS]
    assert swapped.measured == measure(rows, replace(sae, encoder=sae.decoder, decoder=sae.encoder))
    assert bias.measured == measure(rows, replace(sae, input_bias=sae.decoder_bias))
    norms = {one.what: one.measured for one in found[Cause.SCALING]}
    for norm in InputNorm:
        wanted = f"with input normalisation {norm}"
        assert (wanted in norms) is (norm is not InputNorm.NONE)
        if wanted in norms:
            assert norms[wanted] == measure(rows, replace(sae, input_norm=norm))


def test_a_dictionary_that_subtracts_is_tried_without(rows):
    sae = dictionary("jumprelu")
    (found,) = by_cause(rows, sae, UNKNOWN)[Cause.INPUT_BIAS]
    assert found.measured == measure(rows, replace(sae, input_bias=None))


def test_numbers_that_are_not_known_are_not_fitted_to(rows):
    causes = set(by_cause(rows, plain(), UNKNOWN))
    assert causes.isdisjoint({Cause.TOPK, Cause.THRESHOLD, Cause.ENCODER_BIAS})
    assert causes >= {Cause.SWAPPED, Cause.INPUT_BIAS, Cause.SCALING, Cause.ACTIVATION, Cause.DECODER_BIAS}


def test_relu_is_not_tried_where_it_is_relu_already(rows):
    assert Cause.ACTIVATION not in by_cause(rows, dictionary("relu"), UNKNOWN)
    (found,) = by_cause(rows, plain(), UNKNOWN)[Cause.ACTIVATION]
    assert found.measured == measure(rows, replace(plain(), activation=Activation.RELU, threshold=None))


@pytest.mark.parametrize("kind", ["gated", "topk", "layer_norm"])
def test_dictionaries_of_every_kind_can_be_tried(rows, kind):
    sae = dictionary(kind)
    found = by_cause(rows, sae, right(rows, sae))
    assert {Cause.SWAPPED, Cause.SCALING, Cause.INPUT_BIAS} <= set(found)
    assert (Cause.THRESHOLD in found) is (kind == "layer_norm")
