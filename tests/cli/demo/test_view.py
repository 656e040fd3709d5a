"""The output of the demonstration: tables and marks, from messages that are known."""

import io

import pytest
from rich.console import Console

from monitor.cli.demo.script import DemoLine
from monitor.cli.demo.tally import Moved
from monitor.cli.demo.view import FALLS_SHOWN, counters, heading, loaded, side_by_side, verdict
from monitor.cli.show.comparison import ClampComparison
from monitor.cli.show.shade import Painter
from monitor.cli.show.strength import FeatureReadings
from monitor.v1 import monitor_pb2 as pb

PAINTER = Painter(FeatureReadings(frozenset({7})), False)


def printed(form, width=120):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(form)
    return [line.strip() for line in console.export_text().splitlines() if line.strip()]


def test_loaded_policies_with_their_rules():
    rules = [
        pb.Rule(name="a", action=pb.ACTION_BLOCK, mode=pb.MODE_ENFORCE, features=[1, 2]),
        pb.Rule(name="b", action=pb.ACTION_ALERT, mode=pb.MODE_SHADOW, features=[2]),
    ]
    one = pb.Policy(name="greed\x1b", severity=pb.SEVERITY_HIGH, rules=rules, clamps=[pb.Clamp(feature=9)])
    digests = pb.Digests(model="sha256:" + "a" * 64, policies="sha256:" + "c" * 64)
    row, digest = printed(loaded(pb.ListPoliciesResponse(policies=[one], digests=digests)))
    assert row.split("  ") == ["greed\\x1b", "high", "2 features, 1 clamp", "a → block, b → alert (shadow)"]
    assert digest == "model aaaaaaaaaaaa · dictionary - · policies cccccccccccc"


def answer(*detections):
    token = pb.ScoredToken(position=1, text=" power", readings=[pb.Reading(feature=7, value=0.5)])
    scores = [pb.RuleScore(policy="greed", rule="wants", score=0.4, threshold=0.8)]
    coverage = pb.Coverage(tokens_run=2, tokens_scored=2)
    found = pb.Verdict(
        status=pb.CHECK_STATUS_CHECKED,
        detections=detections,
        scores=scores,
        coverage=coverage,
        matched=bool(detections),
    )
    return pb.ScoreResponse(verdict=found, tokens=[token])


def test_a_line_with_what_fired_and_what_was_expected():
    fired = pb.Detection(policy="greed", rule="wants", severity=pb.SEVERITY_HIGH, phase=pb.PHASE_PROMPT)
    text = printed(verdict(DemoLine("greed", ("power",)), answer(fired), PAINTER))
    assert text[0] == "[power=0.50]"
    assert text[1].endswith("expected: greed")
    assert text[2].startswith("● greed / wants")
    text = printed(verdict(DemoLine("", ("power",)), answer(), PAINTER))
    assert text[1].endswith("expected: nothing")
    assert text[2].startswith("no rule fired; closest: greed / wants")


def test_both_texts_beside_each_other_and_what_the_clamps_left():
    features = range(FALLS_SHOWN + 2)
    clamps = tuple(pb.Clamp(feature=feature, target=-0.5) for feature in features)

    def text(word, value, after):
        readings = [pb.Reading(feature=f, value=value, value_after_clamp=after) for f in features]
        tokens = [
            pb.ScoredToken(position=0, text="<s>"),
            pb.ScoredToken(position=1, text=word, phase=pb.PHASE_RESPONSE, readings=readings),
        ]
        return pb.GenerateResponse(text=word, tokens=tokens)

    shown = printed(
        side_by_side(ClampComparison(clamps, text("power", 0.9, None), text("friends", 0.9, 0.0)), False)
    )
    assert "without suppression" in shown[0]
    assert any("power" in line and "friends" in line for line in shown)
    assert "and 2 more" in shown
    assert f"together, per token: {0.9 * len(features):.2f} before, 0.00 with clamps" in shown


@pytest.mark.parametrize(
    ("expected", "shown"), [(3, ["✓", "requests", "+3"]), (4, ["✗", "requests", "+3", "expected", "+4"])]
)
def test_counters_that_moved_otherwise_say_what_was_expected(expected, shown):
    (row,) = printed(counters([Moved("requests", expected, 3)]))
    assert row.split() == shown


def test_a_heading_is_a_line():
    assert printed(heading("Score"))[0].startswith("Score ")
