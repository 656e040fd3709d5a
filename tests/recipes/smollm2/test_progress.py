"""Lines about how a generation goes on."""

import pytest

from monitor.recipes.smollm2 import progress
from monitor.recipes.smollm2.progress import Pace


def test_a_line_tells_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    lines: list[str] = []
    pace = Pace(lines.append, every=60)
    now[0] = 30.0
    pace.add(3000)
    assert not lines
    pace.done = 0.25
    now[0] = 60.0
    pace.add(3000)
    assert lines == ["     6,000 tokens, 100 a second, about 3 min left"]
    now[0] = 100.0
    pace.add(1)
    assert len(lines) == 1
    assert pace.tokens == 6001
