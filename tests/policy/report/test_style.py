"""The style sheet: every class that the page uses has a rule, in light and in dark, and nothing is fetched."""

import re

import pytest

from monitor.policy.report.charts import DRAWN, METHODS
from monitor.policy.report.style import STYLE


def test_braces_are_balanced_and_nothing_is_fetched():
    depth = 0
    for character in STYLE:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert "url(" not in STYLE
    assert "@import" not in STYLE


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_colour_and_curves_are_told_apart_without_it(method):
    assert re.search(rf"\.c-{method}\b[^{{}}]*\{{color:", STYLE)
    if method in DRAWN:
        assert re.search(rf"\.curve\.c-{method}\b[^{{}}]*\{{stroke-(width|dasharray)", STYLE)


def test_every_colour_that_is_used_is_defined_in_light_and_dark():
    light, dark = re.findall(r":root\{(.*?)\}", STYLE, re.DOTALL)[:2]
    defined = set(re.findall(r"(--[\w-]+):", light))
    used = set(re.findall(r"var\((--[\w-]+)\)", STYLE)) - {"--a"}
    assert used <= defined
    assert set(re.findall(r"(--[\w-]+):", dark)) == defined
