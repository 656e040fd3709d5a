from __future__ import annotations

import pytest

from monitor.dictionary.cards import labels
from monitor.errors import DictionaryError


def test_a_hand_label_overrides_and_survives_automatic_ones(tmp_path):
    wrote = (
        labels.Labels(dictionary_digest="sha256:a")
        .with_auto({1: "power", 2: "money"})
        .with_hand(2, " greed ")
    )
    labels.save(tmp_path, wrote.with_auto({1: "control", 2: "cash"}))
    read = labels.load(tmp_path, "sha256:a")
    assert (read.best(1), read.best(2), read.best(3)) == ("control", "greed", "")
    assert (read.by_hand(1), read.by_hand(2)) == (False, True)
    assert read.with_hand(2, "").best(2) == "cash"


def test_labels_of_another_dictionary_are_refused(tmp_path):
    assert labels.load(tmp_path, "sha256:a") == labels.Labels(dictionary_digest="sha256:a")
    labels.save(tmp_path, labels.Labels(dictionary_digest="sha256:a"))
    with pytest.raises(DictionaryError, match="another dictionary"):
        labels.load(tmp_path, "sha256:b")


@pytest.mark.parametrize("content", ["{", "[]", '{"format": "x"}', '{"hand": {}}'])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / labels.FILE).write_text(content)
    with pytest.raises(DictionaryError, match="labels"):
        labels.load(tmp_path, "sha256:a")


def test_scores_and_guesses_are_kept_beside_automatic_labels(tmp_path):
    scores = {2: labels.LabelScore(0.9, 0.95, 0.85, 12, 4, 24), 1: labels.LabelScore(0.5, None, 0.5, 3, 0, 6)}
    wrote = labels.Labels(dictionary_digest="sha256:a").with_auto(
        {1: "unclear", 2: "“a”"}, scores, {1: "“the”"}
    )
    path = labels.save(tmp_path, wrote)
    assert labels.load(tmp_path, "sha256:a") == wrote
    assert len(path.read_text().splitlines()) < 25  # a line for each score
    labels.save(tmp_path, wrote.with_auto({1: "x"}))
    assert labels.load(tmp_path, "sha256:a").scores == {}


@pytest.mark.parametrize("scores", ['{"1": [0.5]}', '{"1": ["a", 1, 1, 1, 1, 1]}', "[]", '{"1": null}'])
def test_broken_scores_are_refused(tmp_path, scores):
    head = '{"format": "sae-monitor.labels.v1", "dictionary_digest": "", "hand": {}, "auto": {}'
    (tmp_path / labels.FILE).write_text(f'{head}, "scores": {scores}}}')
    with pytest.raises(DictionaryError, match="labels"):
        labels.load(tmp_path, "sha256:a")


def test_above_chance_needs_more_than_luck():
    assert labels.LabelScore(1.0, None, 1.0, 2, 0, 4).above_chance
    assert not labels.LabelScore(0.5, None, 0.5, 100, 0, 200).above_chance
    assert not labels.LabelScore(0.6, None, 0.6, 3, 0, 6).above_chance
    assert labels.LabelScore(0.6, None, 0.6, 100, 0, 200).above_chance
    assert labels.LabelScore(0.5, 0.9, 0.5, 20, 10, 40).above_chance  # strong activations are enough
    assert not labels.LabelScore(0.3, None, 0.3, 20, 0, 40).above_chance
