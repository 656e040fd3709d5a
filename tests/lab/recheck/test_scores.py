"""Scores as a lock records them: packed, known again by their texts, and refused where they cannot be used."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy import sparse

from monitor.lab.recheck import scores as module
from monitor.lab.recheck.scores import (
    LeafScores,
    calibration_texts,
    from_lock,
    recorded,
    reference_of,
    score_leaves,
)
from monitor.policy.files.examples import Example, Label
from monitor.policy.files.loader import read_folder
from monitor.policy.files.lock import LockModel, lock_text
from monitor.policy.fit.lengths import EDGES
from monitor.policy.fit.readings import TextReadings, TokenReadings
from tests.policy.policy_files import PAIR, write_concept

RULE = ("rules", "stated")


@pytest.fixture
def source(tmp_path):
    """A policy that reads feature 5, with its lock."""
    write_concept(tmp_path)
    (found,) = read_folder(tmp_path, PAIR)
    return found


@dataclass
class LengthReader:
    """Reads feature 5 of every text as its number of words, at each of its words."""

    takes_turns = False

    def read(self, texts):
        lengths = [len(text.split()) for text in texts]
        rows = np.repeat(lengths, lengths).astype(np.float64)
        matrix = np.zeros((len(rows), 8))
        matrix[:, 5] = rows
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.intp)
        return TextReadings(
            TokenReadings(sparse.csr_matrix(matrix), starts), np.zeros((len(rows), 4), np.float32)
        )


def some(rng, texts):
    best = rng.normal(size=(len(texts.texts), len(EDGES) + 1))
    best[best < -1] = -np.inf
    return LeafScores("float32", texts.keys, {RULE: best, ("conditions", "part"): best * 2})


def test_the_texts_are_examples_and_benign_ones_each_once(source):
    found = calibration_texts(source, ["a quiet day", "rain"], ["rain", "more rain", "more rain"])
    own = len(source.examples)
    assert found.texts[own:] == ["a quiet day", "rain", "more rain"]
    assert (found.own == [1] * own + [0] * 3).all()
    assert (found.beside == [1] * own + [1, 1, 0]).all()
    labels = [example.label for example in source.examples]
    assert [labels[i] for i in found.positives] == [Label.POSITIVE] * labels.count(Label.POSITIVE)
    assert list(found.benign) == [own, own + 1, own + 2]
    groups = {example.group for example in source.examples}
    assert len(np.unique(found.groups)) == len(groups) + 3


def test_what_was_recorded_is_known_again_by_its_text(source):
    texts = calibration_texts(source, [f"text {i}" for i in range(50)])
    scores = some(np.random.default_rng(0), texts)
    held = recorded(scores, texts.recorded)
    again = from_lock(source.lock.model_copy(update={"reference": held}))
    assert again.dtype == "float32"
    np.testing.assert_allclose(again.of(RULE).best, scores.best[RULE], rtol=1e-6)
    other = calibration_texts(source, ["text 7", "never seen"])
    rows = again.rows(other.keys)
    assert texts.texts[rows[-2]] == "text 7"
    assert (rows[-1], rows[0]) == (-1, 0)


def test_a_lock_with_scores_reads_as_it_was_written_and_names_no_text(source):
    texts = calibration_texts(source, ["a quiet day"])
    held = recorded(some(np.random.default_rng(0), texts), texts.recorded)
    whole = source.lock.model_copy(update={"reference": held})
    assert "a quiet day" not in lock_text(whole)
    assert from_lock(LockModel.model_validate(whole.model_dump(by_alias=True, mode="json"))) is not None


@pytest.mark.parametrize(
    "damage",
    [
        {"edges": [16, 48]},
        {"texts": "AAAA"},
        {"rules": {"stated": "AAAA"}},
        {"rules": {"stated": "eJwDAAAAAAE="}},
    ],
)
def test_scores_that_cannot_be_used_are_as_none(source, damage):
    texts = calibration_texts(source, ["a quiet day"])
    held = recorded(some(np.random.default_rng(0), texts), texts.recorded)
    broken = held.model_copy(update=damage)
    assert from_lock(source.lock.model_copy(update={"reference": broken})) is None
    assert from_lock(source.lock) is None


def test_a_lock_does_not_grow_with_the_number_of_benign_texts(source, monkeypatch):
    monkeypatch.setattr(module, "RECORDED", 30)
    texts = calibration_texts(source, [f"text {i}" for i in range(200)], ["further"])
    rows = texts.recorded
    assert len(rows) == len(source.examples) + 30
    assert len(texts.texts) - 1 not in rows
    again = calibration_texts(source, [f"text {i}" for i in reversed(range(200))])
    chosen = {texts.texts[i] for i in rows}
    assert {again.texts[i] for i in again.recorded} == chosen


def test_rules_score_examples_and_benign_texts_in_their_order(source):
    source = replace(
        source, examples=(Example("one two", Label.POSITIVE, "a"), Example("one", Label.NEGATIVE, "b"))
    )
    texts, reader = calibration_texts(source, ["one two three"]), LengthReader()
    found = score_leaves(reader, source, texts, reader.read(["one two three"]), "bfloat16")
    assert (found.dtype, list(found.best)) == ("bfloat16", [("rules", "stated")])
    overall = found.of(RULE).overall
    assert overall[2] > overall[0] > overall[1] > 0
    held = reference_of(reader, source, ["one two three"], reader.read(["one two three"]), "float32")
    np.testing.assert_allclose(
        from_lock(source.lock.model_copy(update={"reference": held})).best[RULE], found.best[RULE]
    )
    nothing = replace(source, examples=())
    assert reference_of(reader, nothing, [], TextReadings.empty(), "float32") is None
