"""What a card concludes from its numbers."""

import pytest

from monitor.policy.files.lock import Difference, Separation
from monitor.policy.fit.card import clearly_better, maturity_of, note_of, pooled_better


def gain(auroc=(0.0, -0.1, 0.1), recall=(0.0, -0.1, 0.1)):
    names = ("auroc", "auroc_low", "auroc_high", "recall", "recall_low", "recall_high")
    return Difference(**dict(zip(names, (*auroc, *recall), strict=True)))


@pytest.mark.parametrize(
    ("one", "better"),
    [
        (gain(), False),
        (gain(auroc=(0.1, 0.02, 0.2)), True),
        (gain(recall=(0.2, 0.01, 0.3)), True),
        (gain(recall=(0.2, 0.01, 0.3), auroc=(-0.1, -0.2, -0.01)), False),
    ],
)
def test_clearly_better_means_that_an_interval_excludes_zero(one, better):
    assert clearly_better(one) is better


@pytest.mark.parametrize(
    ("low", "recall", "said"),
    [
        (0.95, 0.9, "Separates well"),
        (0.75, 0.3, "misses many at a low rate of false positives"),
        (0.75, 0.95, "these are too few to tell how well"),
        (0.5, 0.95, "Does not separate"),
    ],
)
def test_the_note_says_what_keeps_a_policy_from_being_stable(low, recall, said):
    mine = Separation(auroc=0.97, auroc_low=low, auroc_high=1, recall=recall, recall_low=0.1, recall_high=1)
    measures = dict.fromkeys(("policy", "probe", "bag_of_words", "random_features"), mine)
    note = note_of(measures, gain(), "probe", 0.0, maturity_of(mine, 0.0))
    assert said in note
    assert ("misses many" in note) == (said.startswith("misses"))


def separation(recall):
    return Separation(auroc=0.9, auroc_low=0.8, auroc_high=1, recall=recall, recall_low=0, recall_high=1)


def test_another_pooling_is_named_where_it_would_catch_many_more():
    aggregates = {
        name: separation(recall)
        for name, recall in {"mean": 0.7, "max": 0.2, "last": 1.0, "top_k_mean": 0.5}.items()
    }
    assert pooled_better(aggregates, separation(0.65)) == []
    (said,) = pooled_better(aggregates, separation(0.4))
    assert "`mean`" in said
    assert "70%" in said


def test_words_do_as_well_only_where_they_catch_as_much():
    mine, words = separation(0.8), separation(0.4)
    measures = dict.fromkeys(("policy", "probe", "random_features"), mine)
    few = note_of({**measures, "bag_of_words": words}, gain(), "probe", 0.0, "stable")
    assert "bag of words" not in few, "as good by AUROC alone"
    assert "bag of words" in note_of({**measures, "bag_of_words": mine}, gain(), "probe", 0.0, "stable")
