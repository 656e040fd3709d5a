from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.manifold import trustworthiness

from monitor.dictionary.explore.feature_map import draw, neighbourhood


def _decoder(seed=0):
    """Five clusters of 30 directions each."""
    make = torch.Generator().manual_seed(seed)
    centres = torch.randn(5, 16, generator=make)
    return centres.repeat_interleave(30, 0) + 0.3 * torch.randn(150, 16, generator=make)


def test_near_in_the_picture_is_near_in_cosine():
    decoder = _decoder()
    found = neighbourhood(decoder, 7, 120)
    assert found.features[0] == 7
    assert sorted(set(found.features)) == sorted(found.features)
    assert np.all(np.diff(found.cosines) <= 0)
    unit = torch.nn.functional.normalize(decoder[list(found.features)], dim=-1).numpy()
    assert trustworthiness(unit, found.positions, n_neighbors=8) > 0.9


def test_the_same_neighbourhood_is_drawn_every_time():
    first, again = (neighbourhood(_decoder(), 3, 60) for _ in range(2))
    assert np.array_equal(first.positions, again.positions)


@pytest.mark.slow
def test_labels_do_not_cover_each_other(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from matplotlib.axes import Axes

    drawn = []
    original = Axes.annotate
    monkeypatch.setattr(
        Axes, "annotate", lambda self, *a, **k: drawn.append(original(self, *a, **k)) or drawn[-1]
    )
    around = neighbourhood(_decoder(), 3, 100)
    draw(around, [f"label {i} $x 好" for i in around.features], [0.01] * 101, tmp_path / "map.svg")
    shown = [text for text in drawn if text.axes is not None]
    assert 10 < len(shown) < 101
    renderer = shown[0].figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in shown]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
