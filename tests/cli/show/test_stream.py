"""A generation printed while it runs: released text, detections between, the verdict at the end."""

import io

import pytest
from rich.console import Console

from monitor.cli.show.stream import show
from monitor.cli.show.strength import FeatureReadings
from monitor.client import CallFailed
from monitor.v1 import monitor_pb2 as pb


def event(**what):
    return pb.GenerateStreamResponse(request_id="r-1", **what)


def token(text, phase):
    return pb.ScoredToken(text=text, phase=phase)


FOUND = pb.Detection(
    policy="greed", rule="wants", severity=pb.SEVERITY_HIGH, action=pb.ACTION_ALERT, phase=pb.PHASE_RESPONSE
)
VERDICT = pb.Verdict(
    status=pb.CHECK_STATUS_CHECKED,
    action=pb.ACTION_ALERT,
    matched=True,
    detections=[FOUND],
    coverage=pb.Coverage(tokens_run=3, tokens_scored=3),
)
EVENTS = [
    event(chunk=pb.Chunk(tokens=[token("Say", pb.PHASE_PROMPT), token(" it", pb.PHASE_PROMPT)])),
    event(chunk=pb.Chunk(text=" I", tokens=[token(" I", pb.PHASE_RESPONSE)])),
    event(detection=FOUND),
    event(chunk=pb.Chunk(text=" want", tokens=[token(" want", pb.PHASE_RESPONSE)])),
    event(final=pb.Final(finish_reason=pb.FINISH_REASON_LENGTH, verdict=VERDICT, refusal="Not that.")),
]


@pytest.fixture
def console():
    return Console(width=90, record=True, file=io.StringIO(), color_system=None)


def test_text_is_printed_as_it_comes_and_detections_have_a_line_of_their_own(console):
    answer = show(EVENTS, FeatureReadings(frozenset()), console)
    lines = console.export_text().splitlines()
    assert lines[0].startswith("Say it")
    assert lines[0].endswith(" I")
    assert lines[1].startswith("● greed / wants")
    assert lines[2].rstrip() == " want"
    assert "the token limit was reached" in "\n".join(lines[3:])
    assert "Not that." in "\n".join(lines[3:])
    assert (answer.text, answer.request_id, answer.refusal) == (" I want", "r-1", "Not that.")
    assert [t.text for t in answer.tokens] == ["Say", " it", " I", " want"]
    assert answer.verdict == VERDICT
    assert answer.finish_reason == pb.FINISH_REASON_LENGTH


def test_a_stream_without_a_verdict_says_nothing_about_the_text(console):
    with pytest.raises(
        CallFailed, match="the stream ended without a verdict: nothing is known about this text"
    ):
        show(EVENTS[:-1], FeatureReadings(frozenset()), console)
    assert "want" in console.export_text()


def test_text_cannot_command_the_terminal(console):
    show([event(chunk=pb.Chunk(text="a\x1b[2Jb")), EVENTS[-1]], FeatureReadings(frozenset()), console)
    assert "\x1b" not in console.file.getvalue()
