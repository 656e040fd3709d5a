from dataclasses import replace
from pathlib import Path

import pytest
import torch

from monitor.dictionary.bundle import Dictionary
from monitor.dictionary.formats.card import DictionaryCard
from monitor.model.load.hook_points import MLP_OUT, Place
from monitor.model.runtime import LoadedPair
from monitor.model.selftest import texts as module
from monitor.model.selftest.capture import capture
from monitor.model.selftest.causes import Cause
from monitor.model.selftest.diagnosis import diagnose, neighbours
from monitor.model.selftest.expected import expected_of, far
from monitor.model.selftest.measurement import measure
from monitor.model.selftest.texts import load_texts, texts_for
from tests.model.planted import scaled
from tests.model.selftest.numbers import RECORD, rows_from
from tests.model.tiny import CONTEXT, dictionary, loaded_model

HERE = Place(1)


@pytest.fixture(scope="module")
def loaded():
    return replace(loaded_model(), context=CONTEXT // 4)


@pytest.fixture(scope="module")
def texts(loaded):
    """Every fourth text, to save time."""
    every, digest = load_texts()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_texts", lambda: (every[::4], digest))
        return texts_for(loaded)


def pair_at(loaded, place=HERE, sae=None, **card):
    made = Dictionary(sae or dictionary("relu"), DictionaryCard(**card), None, "sha256:d", Path("/nowhere"))
    return LoadedPair(loaded, made, place)


def measured(pair, texts, place=None):
    found = capture(pair.loaded, [place or pair.place], texts.ids)[place or pair.place]
    rows = rows_from(*found, kinds=texts.kinds)
    return rows, measure(rows, pair.dictionary.autoencoder)


def expected(pair, texts, place=HERE):
    """What a record of the pair as it should be says."""
    record = replace(RECORD, measured=measured(pair, texts, place)[1], place=str(place))
    return expected_of(DictionaryCard(), record, "float32")


def suspects(pair, texts, wanted):
    return diagnose(pair, texts, measured(pair, texts)[0], wanted)


@pytest.mark.parametrize(
    ("place", "cause"), [(Place(2), Cause.LAYER), (Place(0), Cause.LAYER), (Place(1, MLP_OUT), Cause.POINT)]
)
def test_a_wrong_place_is_found_by_trying_others(loaded, texts, place, cause):
    wanted = expected(pair_at(loaded), texts)
    first = suspects(pair_at(loaded, place), texts, wanted)[0]
    assert (first.cause, first.what) == (cause, f"at {HERE}")
    assert first.off <= 1
    assert first.measured == measured(pair_at(loaded), texts)[1]


def test_a_recorded_place_far_away_is_tried_too(loaded, texts):
    wanted = expected(pair_at(loaded), texts, Place(0))
    first = suspects(pair_at(loaded, Place(3)), texts, wanted)[0]
    assert (first.cause, first.what) == (Cause.LAYER, f"at {Place(0)}")


def test_a_wrong_scale_is_found_by_arithmetic(loaded, texts):
    right = pair_at(loaded)
    wrong = pair_at(loaded, sae=scaled(0.5)(replace(dictionary("relu"), input_bias=None)))
    fair = pair_at(loaded, sae=replace(dictionary("relu"), input_bias=None))
    assert right.place == wrong.place
    found = suspects(wrong, texts, expected(fair, texts))
    assert Cause.SCALING in [one.cause for one in found[:2]]


def test_each_cause_is_named_once_and_the_likeliest_first(loaded, texts):
    wanted = expected(pair_at(loaded), texts)
    found = suspects(pair_at(loaded, Place(2)), texts, wanted)
    causes = [one.cause for one in found]
    assert len(set(causes)) == len(causes)
    assert [one.rank for one in found] == sorted(one.rank for one in found)
    for one in found:
        assert one.off == far(one.measured, wanted)


def test_direct_evidence_raises_a_cause_and_stands_without_an_experiment(loaded, texts):
    sae = replace(dictionary("relu"), encoder_bias=torch.zeros(96))
    wanted = expected(pair_at(loaded), texts)
    found = {one.cause: one for one in suspects(pair_at(loaded, sae=sae, prepend_bos=False), texts, wanted)}
    bias = found[Cause.ENCODER_BIAS]
    assert bias.rank <= 0.9
    assert found[Cause.EXTRA_BOS].rank <= 0.9
    without = {one.cause: one for one in suspects(pair_at(loaded), texts, wanted)}
    assert without[Cause.EXTRA_BOS].rank >= found[Cause.EXTRA_BOS].rank


def test_neighbours_are_the_layers_beside_it(loaded, texts):
    pair = pair_at(loaded)
    found = neighbours(pair, texts)
    assert list(found) == [Place(0), Place(2)]
    for place, numbers in found.items():
        assert numbers == measured(pair, texts, place)[1]
    assert list(neighbours(pair_at(loaded, Place(0)), texts)) == [Place(1)]
    assert list(neighbours(pair_at(loaded, Place(3)), texts)) == [Place(2)]
