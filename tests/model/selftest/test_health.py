import math
from types import SimpleNamespace

import pytest
import torch

from monitor.dictionary.formats.card import DictionaryCard
from monitor.model.selftest.expected import Expected, ExpectedSource
from monitor.model.selftest.health import dictionary_baseline, dictionary_health
from monitor.model.selftest.result import CHECKS, FailedCheck, SelfTest
from tests.model.selftest.numbers import FOUND, RECORD

CARD = DictionaryCard(l0=40.0, explained_variance=0.9)


def pair(density=None, card=CARD):
    statistics = None if density is None else SimpleNamespace(density=torch.tensor(density))
    return SimpleNamespace(dictionary=SimpleNamespace(statistics=statistics, card=card))


def test_what_was_measured_on_its_corpus_goes_before_the_card():
    found = dictionary_baseline(pair([0.25, 0.5, 0.0]))
    assert (found.l0, found.explained_variance, found.density) == (0.75, 0.9, (0.25, 0.5, 0.0))


@pytest.mark.parametrize(("card", "l0", "variance"), [(CARD, 40.0, 0.9), (DictionaryCard(), None, None)])
def test_without_statistics_the_card_says_what_it_knows(card, l0, variance):
    found = dictionary_baseline(pair(card=card))
    assert (found.l0, found.explained_variance, found.density) == (l0, variance, ())


def test_a_test_gives_its_numbers_and_checks():
    test = SelfTest(RECORD, Expected(ExpectedSource.NONE), (), (FailedCheck("l0", "wrong"),), ())
    found = dictionary_health(pair(), test)
    assert (found.l0, found.explained_variance) == (FOUND.l0, FOUND.explained_variance)
    assert (found.norm_outliers, found.skipped) == (FOUND.outliers, False)
    assert dict(found.checks) == {check: check != "l0" for check in CHECKS}
    assert found.expected == dictionary_baseline(pair())


def test_a_test_that_was_skipped_measured_nothing():
    found = dictionary_health(pair([0.5]), None)
    assert all(math.isnan(n) for n in (found.l0, found.explained_variance, found.norm_outliers))
    assert (found.skipped, found.checks) == (True, ())
    assert found.expected.l0 == 0.5
