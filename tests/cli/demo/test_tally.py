"""Metrics against what was sent."""

import pytest

from monitor.cli.demo.scrape import parse
from monitor.cli.demo.tally import CallTally, gap
from monitor.v1 import monitor_pb2 as pb

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


def verdict(scored, run, status=pb.CHECK_STATUS_CHECKED, *rules):
    detections = [pb.Detection(policy=policy, rule=rule) for policy, rule in rules]
    return pb.Verdict(
        status=status, coverage=pb.Coverage(tokens_run=run, tokens_scored=scored), detections=detections
    )


def test_a_call_of_another_kind_is_noticed():
    tally = CallTally()
    for _ in range(3):
        tally.called("Score")
    rows = {row.name: row for row in tally.against(parse(TEXT))}
    assert rows["requests, Score"].right
    assert not rows["requests, all"].right


def test_detections_and_tokens_add_up():
    tally = CallTally()
    tally.called("Score", verdict(5, 5, pb.CHECK_STATUS_CHECKED, ("a", "r"), ("b", "r")))
    tally.called("Generate", verdict(7, 7, pb.CHECK_STATUS_CHECKED, ("a", "r")))
    assert (tally.tokens, tally.verdicts, tally.gaps) == (12, 2, [])
    assert tally.detections == {("a", "r"): 2, ("b", "r"): 1}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (verdict(5, 5), []),
        (verdict(4, 5), ["CHECKED, 4 of 5 tokens"]),
        (verdict(5, 5, pb.CHECK_STATUS_UNKNOWN), ["UNKNOWN, 5 of 5 tokens"]),
        (verdict(0, 0), ["CHECKED, 0 of 0 tokens"]),
        (pb.Verdict(), ["UNSPECIFIED, 0 of 0 tokens"]),
    ],
)
def test_a_verdict_that_does_not_cover_everything(given, said):
    assert gap(given) == said
