"""Tables of features: numbers on the right, words that cannot command a terminal."""

import io

import pytest
from rich.console import Console

from monitor.cli.features.table import FeatureTableRow, feature_table


def printed(rows):
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(feature_table(rows))
    return [line.split() for line in console.export_text().splitlines()]


def test_columns_are_those_of_the_first_row():
    rows = [
        FeatureTableRow(7, {"cosine": 0.12345, "density": 0.001234}, "wants power", {"fires on": "more"}),
        FeatureTableRow(12, {"cosine": 1234567.0, "density": None}, "", {"fires on": "–"}),
    ]
    assert printed(rows) == [
        ["feature", "cosine", "density", "label", "fires", "on"],
        ["7", "0.123", "0.123%", "wants", "power", "more"],
        ["12", "1.23e+06", "–", "–"],
    ]
    assert printed([]) == [["feature", "label"]]


@pytest.mark.parametrize(
    ("number", "shown"), [("3/4", "3/4"), (17, "17"), (0.5, "0.5"), (0.0, "0"), (None, "–")]
)
def test_numbers(number, shown):
    assert printed([FeatureTableRow(1, {"n": number}, "")])[1] == ["1", shown]


def test_labels_are_one_line_of_text():
    text = printed([FeatureTableRow(1, {}, "a\nb\x1b[31m[bold]")])[1:]
    assert len(text) == 1
    assert "\x1b" not in "".join(text[0])
    assert "[bold]" in "".join(text[0])


def test_notes_are_not_for_json():
    row = FeatureTableRow(7, {"cosine": 0.5}, "l", {"fires on": "more"})
    assert row.record() == {"feature": 7, "cosine": 0.5, "label": "l"}
