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
    scores = {
        2: labels.LabelScore(0.9, 0.95, 0.85, 12, 4, 24, 9, 0.001),
        1: labels.LabelScore(0.5, None, 0.5, 3, 0, 6, 0, 0.25),
    }
    wrote = labels.Labels(dictionary_digest="sha256:a").with_auto(
        {1: "unclear", 2: "“a”"}, scores, {1: "“the”"}
    )
    path = labels.save(tmp_path, wrote)
    assert labels.load(tmp_path, "sha256:a") == wrote
    assert len(path.read_text().splitlines()) < 25  # a line for each score
    labels.save(tmp_path, wrote.with_auto({1: "x"}))
    assert labels.load(tmp_path, "sha256:a").scores == {}


@pytest.mark.parametrize("scores", ['{"1": [0.5]}', '{"1": ["a", 1, 1, 1, 1, 1, 1, 1]}', "[]", '{"1": null}'])
def test_broken_scores_are_refused(tmp_path, scores):
    head = '{"format": "sae-monitor.labels.v1", "dictionary_digest": "", "hand": {}, "auto": {}'
    (tmp_path / labels.FILE).write_text(f'{head}, "scores": {scores}}}')
    with pytest.raises(DictionaryError, match="labels"):
        labels.load(tmp_path, "sha256:a")


@pytest.mark.parametrize(
    ("auroc", "strong", "right", "common", "above"),
    [
        (1.0, None, 12, 0.01, True),
        (0.58, None, 2, 0.001, True),  # a rare word that holds twice is no luck
        (0.58, None, 2, 0.1, False),  # a common one is
        (0.5, None, 0, 0.0, False),
        (0.51, None, 1, 0.0001, False),  # above chance, but of no use
        (0.51, 0.9, 1, 0.0001, True),  # strong activations are enough
    ],
)
def test_above_chance_needs_more_than_luck_and_some_use(auroc, strong, right, common, above):
    assert labels.LabelScore(auroc, strong, 0.5, 12, 4, 24, right, common).above_chance is above
