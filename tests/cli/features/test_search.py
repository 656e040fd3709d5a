"""`features search`: what fires on the texts together."""

from __future__ import annotations

import json

import pytest

from monitor.cli.features.search import _quoted
from tests.cli.features.described import activations, run


def test_search_finds_only_what_fires_on_the_texts(pair):
    texts = ["I want more power", "power and money"]
    found = json.loads(run("features", "search", *texts, *pair.options, "--json").stdout)
    assert found["features"]
    first, second = (activations(pair, text) for text in texts)
    for row in found["features"]:
        fires = [float(a[:, row["feature"]].max()) > 0 for a in (first, second)]
        assert row["fired"] == f"{sum(fires)}/2"
        assert [peak is not None for peak in row["peaks"]] == fires
    assert "fires most on" in run("features", "search", *texts, *pair.options).stdout


@pytest.mark.parametrize(
    ("peaks", "shown"), [([" more", None], "“ more” · –"), ([None], "–"), (["a", "b"], "“a” · “b”")]
)
def test_where_each_text_fires_most(peaks, shown):
    assert _quoted(peaks) == shown
