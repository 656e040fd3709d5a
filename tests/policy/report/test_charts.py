"""Charts: numbers stand where they belong, ends are taken, and names are escaped."""

import re

import pytest

from monitor.policy.report.charts import METHODS, IntervalRow, curves, distributions, intervals


def test_values_outside_of_the_axis_stand_at_its_ends():
    chart = intervals("t", [IntervalRow("x", "policy", 2.0, -1.0, 3.0, "2 of 1")], 0.0, 1.0)
    assert 'cx="416.0"' in chart
    assert 'x1="164.0" y1="20.0" x2="416.0"' in chart
    assert "2 of 1" in chart


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 1.0, ["0", "0.25", "0.5", "0.75", "1"]),
        (0.4, 1.0, ["0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1"]),
        (0.0, 0.03, ["0 %", "0.5 %", "1 %", "1.5 %", "2 %", "2.5 %", "3 %"]),
        (0.0, 0.1, ["0 %", "2 %", "4 %", "6 %", "8 %", "10 %"]),
    ],
)
def test_the_axis_has_round_numbers(low, high, ticks):
    chart = intervals("t", [], low, high)
    assert re.findall(r'class="tick"[^>]*>([^<]+)<', chart) == ticks


def test_the_mark_is_drawn_only_where_it_is_given():
    row = IntervalRow("x", "policy", 0.5, 0.4, 0.6)
    assert 'class="mark"' not in intervals("t", [row], 0.0, 1.0)
    assert 'class="mark" x1="290.0"' in intervals("t", [row], 0.0, 1.0, mark=0.5)


def test_curves_are_drawn_for_few_methods_and_on_a_logarithmic_axis():
    shares = (0.0, 0.01, 0.1, 1.0)
    chart = curves(
        "t", shares, {"policy": (0, 0, 0.5, 1), "probe": (1, 1, 1, 1), "difference_of_means": (0,) * 4}
    )
    lines = re.findall(r'<polyline class="curve c-(\w+)" points="([^"]+)"', chart)
    assert [name for name, _ in lines] == ["policy", "probe"]
    xs = [float(point.split(",")[0]) for point in lines[0][1].split()]
    assert xs == pytest.approx([44.0, 187.0, 330.0]), "each factor of ten is equally wide"
    assert METHODS["probe"] in chart
    assert METHODS["difference_of_means"] not in chart
    with pytest.raises(ValueError, match="zip"):
        curves("t", shares, {"policy": (0, 1)})


def test_histograms_count_every_text_once():
    rows = [("yes", "positive", [0.0, 0.04, 0.06, 1.0, 5.0]), ("none", "benign", [])]
    chart = distributions("t", rows)
    heights = [float(h) for h in re.findall(r'<rect[^>]*height="([\d.]+)"', chart)]
    assert heights == [42.0, 21.0, 21.0, 21.0]
    assert "5 texts" in chart
    assert "40% fire" in chart
    assert "0 texts" in chart
    assert "0.0% fire" in chart


def test_names_are_text():
    chart = intervals("<b>", [IntervalRow("<i>", "policy", 0.5, 0.4, 0.6, "<u>")], 0.0, 1.0)
    assert "<title>&lt;b&gt;</title>" in chart
    assert "&lt;i&gt;" in chart
    assert "&lt;u&gt;" in chart
