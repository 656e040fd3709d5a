"""The checks of the soak run, on known results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from monitor.bench.soak import KINDS, SoakResult, judge

MIB = 1 << 20
OUTCOMES = Counter({f"{name}: ok": 100 for name in KINDS})


def soak(seconds: float, resident: Sequence[float], **seen: object) -> SoakResult:
    """A run whose process had these sizes in MiB, at even distances."""
    fields = {"outcomes": OUTCOMES, "threads": [40] * len(resident), **seen}
    return SoakResult(resident=[int(size * MIB) for size in resident], seconds=seconds, **fields)  # type: ignore[arg-type]


def memory(found: dict[str, bool | None]) -> tuple[str, bool | None]:
    return next(item for item in found.items() if "memory" in item[0])


def test_a_quiet_hour_holds() -> None:
    assert set(judge(soak(3600, [900] * 20 + [1000] * 80), 0.02).values()) == {True}


def test_growth_after_the_first_quarter_counts() -> None:
    said, held = memory(judge(soak(3600, [1000 + step for step in range(100)]), 0.02))
    assert held is False
    assert "+6" in said


def test_a_short_run_says_it_and_does_not_judge() -> None:
    said, held = memory(judge(soak(300, [1000 + step for step in range(100)]), 0.02))
    assert held is None
    assert "judged from 24 minutes on" in said


def test_everything_else_is_judged_in_a_short_run_too() -> None:
    level = [1000.0] * 100
    for wrong in (
        {"wrong": Counter({"score: INTERNAL": 1})},
        {"outcomes": Counter({"score: ok": 1})},
        {"threads": [40] * 50 + [50] * 50},
        {"left_open": 9},
    ):
        assert list(judge(soak(300, level, **wrong), 0.02).values()).count(False) == 1
