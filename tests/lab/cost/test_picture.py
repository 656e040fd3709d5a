"""Effect against damage as curves."""

import sys

import pytest

from monitor.errors import ConfigurationError
from monitor.lab.cost.edits import DENSE, DROPPED, NOTHING, OWN
from monitor.lab.cost.picture import draw_cost
from tests.lab.cost.measured import point

POINTS = [
    point(NOTHING, 0.0, kl=0.0),
    *(point(OWN, strength, kl=-strength / 10) for strength in (-0.5, -1.0, -2.0)),
    point(DROPPED, -1.0, own_score=None, later_share=None),
    point(DENSE, 2.0),
]


@pytest.fixture
def figure(tmp_path, monkeypatch):
    """The figure that was drawn last."""
    from matplotlib.figure import Figure

    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k)))
    assert draw_cost(POINTS, "greed", tmp_path / "a.png") == tmp_path / "a.png"
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    return drawn[0]


def test_a_curve_for_each_edit_in_the_order_of_damage(figure):
    unsafe, own, later = figure.axes
    lines = {line.get_label(): line for line in unsafe.get_lines() if not line.get_label().startswith("_")}
    assert {OWN, DROPPED, DENSE} <= set(lines)
    x = lines[OWN].get_xdata()
    assert list(x) == sorted(x)
    assert [round(value, 3) for value in x] == [0.05, 0.1, 0.2]
    assert DROPPED not in {line.get_label() for line in own.get_lines()}, "what has no score is not drawn"
    assert DROPPED not in {line.get_label() for line in later.get_lines()}
    assert figure.get_suptitle() == "greed"


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        ConfigurationError, match=r"pictures need matplotlib: pip install 'sae-monitor\[plots\]'"
    ):
        draw_cost(POINTS, "greed", tmp_path / "a.png")
