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
