"""The readable form, as text."""

import io

import pytest
from rich.console import Console

from monitor.cli.show import verdict as render
from monitor.cli.show.shade import Painter
from monitor.cli.show.strength import RuleScores
from monitor.v1 import monitor_pb2 as pb


def shown(form, width=100):
    console = Console(file=io.StringIO(), record=True, width=width, color_system=None)
    console.print(form)
    return console.export_text()


def detection(**changed):
    given = {
        "policy": "power-seeking",
        "rule": "states-it",
        "category": "power_seeking",
        "severity": pb.SEVERITY_HIGH,
        "action": pb.ACTION_ALERT,
        "mode": pb.MODE_ENFORCE,
        "phase": pb.PHASE_PROMPT,
        "position": 9,
        "score": 0.83,
        "threshold": 0.41,
        "evidence": [
            pb.Evidence(position=9, text=" control", score=0.9, readings=[pb.Reading(feature=77, value=0.8)]),
            pb.Evidence(position=8, text="\n", score=0.2),
        ],
    }
    return pb.Detection(**(given | changed))


def verdict(run=10, scored=10, truncated=0, **given):
    coverage = pb.Coverage(tokens_run=run, tokens_scored=scored, tokens_truncated=truncated)
    return pb.Verdict(**({"status": pb.CHECK_STATUS_CHECKED, "coverage": coverage} | given))


def test_checked_and_not_matched_are_two_statements():
    lines = shown(render.verdict_block(verdict())).splitlines()
    assert lines[0].strip() == "CHECKED   10 of 10 tokens scored"
    assert lines[1].strip() == "NOT MATCHED   no rule fired"


def test_sinks_behind_the_first_token_are_counted_apart():
    coverage = pb.Coverage(tokens_run=10, tokens_scored=10, tokens_sinks=3)
    line = shown(render.status_line(verdict(coverage=coverage)))
    assert "10 of 10 tokens scored, 3 of them attention sinks that no rule judges" in line
    first = pb.Coverage(tokens_run=10, tokens_scored=10, tokens_sinks=1)
    assert "sinks" not in shown(render.status_line(verdict(coverage=first)))


def test_unknown_never_reads_as_clean():
    given = verdict(scored=4, status=pb.CHECK_STATUS_UNKNOWN, failure="tap_missed")
    text = shown(render.verdict_block(given))
    assert "CHECKED" not in text
    assert "UNKNOWN   4 of 10 tokens scored (tap_missed).  No detection means nothing here." in text


def test_unknown_and_matched_are_both_said():
    given = verdict(
        scored=4,
        status=pb.CHECK_STATUS_UNKNOWN,
        matched=True,
        action=pb.ACTION_BLOCK,
        detections=[detection()],
    )
    text = shown(render.verdict_block(given))
    assert "UNKNOWN" in text
    assert "MATCHED   1 rule fired, strongest enforced action: block" in text


def test_dropped_tokens_are_counted():
    assert "10 of 10 tokens scored, 120 dropped before the model ran" in shown(
        render.status_line(verdict(truncated=120))
    )


def test_a_detection_names_policy_rule_severity_action_and_evidence():
    text = shown(
        render.verdict_block(verdict(matched=True, action=pb.ACTION_ALERT, detections=[detection()]))
    )
    assert "● power-seeking / states-it  high  alert  in the prompt, at token 9" in text
    assert "score 0.83, threshold 0.41" in text
    assert 'token    9  " control"  0.90   #77 0.80' in text
    assert 'token    8  "\\n"  0.20' in text


def test_a_withheld_token_is_not_shown_as_empty():
    withheld = detection(evidence=[pb.Evidence(position=12, score=0.9)])
    assert "token   12  (not released)  0.90" in shown(render.detection_block(withheld))


def test_a_shadow_rule_says_that_it_did_nothing():
    text = shown(render.detection_line(detection(mode=pb.MODE_SHADOW, action=pb.ACTION_BLOCK)))
    assert "shadow, would block" in text


def test_rules_in_shadow_only_are_said_to_have_done_nothing():
    given = verdict(matched=True, action=pb.ACTION_ALLOW, detections=[detection(mode=pb.MODE_SHADOW)])
    assert "MATCHED   1 rule fired, none of them enforced" in shown(render.match_line(given))


@pytest.mark.parametrize("field", ["policy", "rule"])
def test_names_are_not_trusted(field):
    assert "\\x1b" in shown(render.detection_line(detection(**{field: "a\x1b[2J"})))


def test_rules_that_did_not_fire_are_sorted_by_how_far_they_came():
    scores = [
        pb.RuleScore(
            policy="power-seeking", rule="states-it", phase=pb.PHASE_PROMPT, score=0.83, threshold=0.41
        ),
        pb.RuleScore(
            policy="power-seeking", rule="states-it", phase=pb.PHASE_RESPONSE, score=0.0, threshold=0.41
        ),
        pb.RuleScore(policy="bias", rule="r", phase=pb.PHASE_PROMPT, score=0.1, threshold=0.8),
        pb.RuleScore(policy="deception", rule="r", phase=pb.PHASE_PROMPT, score=0.3, threshold=0.4),
    ]
    text = shown(render.verdict_block(verdict(matched=True, detections=[detection()], scores=scores)))
    rest = text.split("Rules that did not fire")[1]
    assert "0.83 of 0.41" not in rest
    assert rest.index("deception / r") < rest.index("bias / r") < rest.index("power-seeking / states-it")
    assert "━━━━━━━━━━━━────" in rest


@pytest.mark.parametrize(
    ("score", "threshold", "share"), [(1, 2, 0.5), (3, 2, 1), (-1, 2, 0), (1, 0, 0), (-1, -2, 0)]
)
def test_nearness_stays_between_zero_and_one(score, threshold, share):
    assert render.nearness(pb.RuleScore(score=score, threshold=threshold)) == share


def test_more_rules_than_fit_are_counted():
    scores = [pb.RuleScore(policy=f"p{i}", rule="r", score=i / 100, threshold=1) for i in range(20)]
    assert f"and {20 - render.SCORES_SHOWN} more" in shown(render.verdict_block(verdict(scores=scores)))


def test_digests_are_short_and_named():
    digests = pb.Digests(model="sha256:" + "ab" * 32, dictionary="sha256:" + "cd" * 32)
    lines = [line.strip() for line in shown(render.footer("req-1", digests)).splitlines()]
    assert "request req-1\nmodel abababababab · dictionary cdcdcdcdcdcd · policies -" in "\n".join(lines)


def test_values_from_a_newer_server_are_shown_as_numbers():
    assert "value 9" in shown(render.detection_line(detection(severity=9)))


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_whole_response_fits_any_width(width):
    tokens = [pb.ScoredToken(position=i, text=f" word{i}", phase=pb.PHASE_PROMPT) for i in range(60)]
    response = pb.ScoreResponse(
        tokens=tokens, verdict=verdict(60, 60, matched=True, detections=[detection()])
    )
    text = shown(render.scored(response, Painter(RuleScores(()), colour=False)), width)
    assert max(map(len, text.splitlines())) <= width
    assert "word59" in text.replace("\n", "")


def test_without_tokens_there_is_no_legend():
    painter = Painter(RuleScores(()), colour=False)
    assert "threshold" not in shown(render.scored(pb.ScoreResponse(verdict=verdict()), painter))


def test_only_enforced_actions_count_as_acting():
    kinds = [detection(), detection(mode=pb.MODE_SHADOW), detection(action=pb.ACTION_ALLOW)]
    assert render.enforced(kinds) == [kinds[0]]
