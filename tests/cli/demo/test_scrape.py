"""Counters at `/metrics`, and what moved between two scrapes."""

import pytest

from monitor.cli.demo.scrape import parse, scrape
from monitor.client import Unreachable

TEXT = """\
# TYPE sae_monitor_requests_total counter
sae_monitor_requests_total{code="OK",method="Score"} 3.0
sae_monitor_requests_total{code="INTERNAL",method="Score"} 1.0
# TYPE sae_monitor_running gauge
sae_monitor_running 4.0
# TYPE sae_monitor_request_duration_seconds histogram
sae_monitor_request_duration_seconds_bucket{le="+Inf"} 4.0
sae_monitor_request_duration_seconds_count 4.0
sae_monitor_request_duration_seconds_sum 0.5
"""


def test_only_what_counts_up_is_kept():
    names = {name for name, _ in parse(TEXT).samples}
    assert names == {"sae_monitor_requests_total", "sae_monitor_request_duration_seconds_count"}


def test_totals_over_labels():
    found = parse(TEXT)
    assert found.total("sae_monitor_requests_total") == 4
    assert found.total("sae_monitor_requests_total", code="OK") == 3
    assert found.total("sae_monitor_requests_total", code="OK", method="Generate") == 0


def test_what_moved_since():
    earlier = parse(TEXT.replace("3.0", "1.0"))
    moved = parse(TEXT).since(earlier).samples
    assert moved == {("sae_monitor_requests_total", (("code", "OK"), ("method", "Score"))): 2.0}


def test_nobody_answers():
    with pytest.raises(Unreachable, match="no metrics at"):
        scrape("127.0.0.1:1")
