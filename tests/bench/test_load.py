"""The checks of the load measurement, on known numbers, and what it reads of a server's metrics."""

import io

import pytest

from monitor.bench import load
from monitor.bench.load import ScoreCalls, _counted, _report, free_port


def outcome(ok=100, failed=0, incomplete=0, resident=None):
    calls = ScoreCalls(incomplete=incomplete, seconds=[i / 1000 for i in range(1, ok + 1)])
    calls.codes.update({"OK": ok} | ({"INTERNAL": failed} if failed else {}))
    calls.resident = resident or [100 * 2**20] * 50
    return calls


def test_everything_holds(capsys):
    assert _report(outcome(), 100, 100, 0.05)
    said = capsys.readouterr().out
    assert "latency p50 51.0 ms, p99 100.0 ms" in said
    assert "ok   none lost: 100 of 100 answered" in said
    assert "FAIL" not in said


@pytest.mark.parametrize(
    ("given", "calls", "counted", "failing"),
    [
        ({}, 101, 101, ["none lost: 100 of 101 answered", "none failed", "the server's counter agrees: 101"]),
        ({"ok": 99, "failed": 1}, 100, 100, ["none failed: {'OK': 99, 'INTERNAL': 1}"]),
        ({"incomplete": 2}, 100, 100, ["all checked: 2 incomplete"]),
        ({}, 100, 99, ["the server's counter agrees: 99"]),
        ({"resident": [100] * 30 + [106] * 20}, 100, 100, ["memory flat after the first fifth: +6.0%"]),
    ],
)
def test_what_does_not_hold_is_said(capsys, given, calls, counted, failing):
    assert not _report(outcome(**given), calls, counted, 0.05)
    said = capsys.readouterr().out
    for part in failing[:1]:
        assert f"FAIL {part}" in said


def test_memory_that_grew_while_it_warmed_up_is_no_growth(capsys):
    assert _report(outcome(resident=[10 * i for i in range(1, 11)] + [100] * 40), 100, 100, 0.05)
    assert "+0.0%" in capsys.readouterr().out


def test_the_servers_own_count_is_of_scores_that_were_answered(monkeypatch):
    text = (
        'sae_monitor_requests_total{code="OK",method="Score"} 3.0\n'
        'sae_monitor_requests_total{code="INTERNAL",method="Score"} 9.0\n'
        'sae_monitor_requests_total{code="OK",method="Generate"} 5.0\n'
    )
    monkeypatch.setattr(load.urllib.request, "urlopen", lambda url, timeout: io.BytesIO(text.encode()))
    assert _counted("127.0.0.1:1") == 3


def test_afree_port_is_one():
    assert 1024 < free_port() < 65536
