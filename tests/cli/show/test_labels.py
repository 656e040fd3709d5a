from __future__ import annotations

from pathlib import Path

import pytest

from monitor.cli.show.labels import score_text, summary_text
from monitor.dictionary.cards.labels import LabelScore
from monitor.dictionary.labeller.dictionary_labels import LabelSummary


def test_a_score_is_said_with_the_places_that_it_was_measured_on():
    assert score_text(LabelScore(0.912, 0.987, 0.9, 12, 4, 24, 9, 0.0012)) == (
        "AUROC 0.91 (0.99 where it fires strongly) on 36 other places; it holds at 9 of 12 where the feature fires and "
        "at 0.12% of all"
    )
    assert score_text(LabelScore(0.9, None, 0.9, 12, 0, 24, 9, 0.0)).startswith(
        "AUROC 0.90 on 36 other places;"
    )
    assert score_text(None) == ""


def test_a_summary_stands_beside_chance():
    text = summary_text(LabelSummary(4096, 0.8, 0.9, 0.75, 0.5, 12))
    assert "AUROC 0.800" in text
    assert "labels of other features 0.500" in text
    assert "unclear 12 of 4,096" in text


@pytest.mark.parametrize("folder", [None, Path("somewhere")])
def test_a_summary_says_where_categories_are_lacking(monkeypatch, folder):
    monkeypatch.setattr("monitor.cli.show.labels.wordnet_folder", lambda: folder)
    text = summary_text(LabelSummary(4096, 0.8, 0.9, 0.75, 0.5, 12))
    assert ("Debian: wordnet-base" in text) is (folder is None)


def test_labels_that_were_not_tried_say_so():
    assert "none could be tried" in summary_text(LabelSummary(0, 0.5, 0.5, 0.5, 0.5, 0))
