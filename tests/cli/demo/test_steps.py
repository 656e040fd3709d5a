"""The steps of the demonstration: each of their claims can fail."""

import pytest

from monitor.cli.demo.expectations import Expectations
from monitor.cli.demo.script import DemoLine
from monitor.cli.demo.steps import DemoSteps, line_input, quoted
from monitor.cli.demo.tally import CallTally
from monitor.cli.errors import ExitCode
from monitor.v1 import monitor_pb2 as pb
from tests.cli.demo.demonstrated import LINES, broken, demonstrate


@pytest.mark.slow
@pytest.mark.parametrize(
    ("faults", "claims"),
    [
        ({"unscored": 1}, ["all 6 verdicts are CHECKED, with every token scored"]),
        (
            {"deaf": True},
            [
                "power_seeking is found in “I want more power”",
                f"deception is found in {quoted(LINES[1].text)}",
            ],
        ),
        ({"jumpy": True}, ["no rule acts on “We bake bread”"]),
        (
            {"clamps_do_nothing": True},
            ["where it is clamped, no feature reads above its target", "suppression changes the text"],
        ),
        (
            {"clamps_always": True},
            ["without clamps no token is edited", "together the clamped features read lower than before"],
        ),
        ({"moody": True}, ["the same request without clamps gives the same text"]),
        ({"miscounts": True}, ["metrics moved by exactly what was sent"]),
        ({"sick": True}, ["the server's health is SERVING"]),
        ({"empty": True}, ["policies are loaded", "policy power-seeking is loaded and has clamps"]),
        (
            {"ends_early": True},
            ["all 6 verdicts are CHECKED, with every token scored", "metrics moved by exactly what was sent"],
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_every_fault_breaks_an_expectation(faults, claims, monkeypatch):
    monkeypatch.setattr("monitor.cli.demo.tally.SETTLE_SECONDS", 0.2)
    expectations, text = demonstrate(**faults)
    assert [claim for claim in broken(expectations) if claim in claims] == claims
    assert expectations.code == ExitCode.MATCHED
    assert "✗" in text


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [("a\n  b", 48, "“a b”"), ("abcdef", 6, "“abcdef”"), ("abcdefg", 6, "“abcde…”"), ("", 6, "“”")],
)
def test_a_text_is_quoted_on_one_line(text, width, shown):
    assert quoted(text, width) == shown


def test_turns_become_a_conversation_and_a_text_a_text():
    assert line_input(DemoLine("", ("a",))) == pb.Input(text="a")
    found = line_input(DemoLine("", ("a", "b", "c"))).conversation.messages
    assert [(m.role, m.content) for m in found] == [
        (pb.ROLE_USER, "a"),
        (pb.ROLE_ASSISTANT, "b"),
        (pb.ROLE_USER, "c"),
    ]


class Client:
    """Gives the verdict that it is told to."""

    def __init__(self, *detections):
        self.verdict = pb.Verdict(
            status=pb.CHECK_STATUS_CHECKED,
            detections=detections,
            coverage=pb.Coverage(tokens_run=3, tokens_scored=3),
        )

    def score(self, content, include_tokens):
        return pb.ScoreResponse(verdict=self.verdict)


def detection(category, mode=pb.MODE_ENFORCE, action=pb.ACTION_ALERT):
    return pb.Detection(policy="p", rule="r", category=category, mode=mode, action=action)


@pytest.mark.parametrize(
    ("line", "detections", "held"),
    [
        (LINES[0], [detection("power_seeking")], True),
        (LINES[0], [detection("power_seeking", pb.MODE_SHADOW)], True),
        (LINES[0], [detection("bias")], False),
        (LINES[0], [], False),
        (LINES[2], [], True),
        (LINES[2], [detection("bias", pb.MODE_SHADOW)], True),
        (LINES[2], [detection("bias")], False),
    ],
)
def test_a_line_is_held_to_its_category(line, detections, held):
    steps = DemoSteps(Client(*detections), Expectations(), CallTally())
    steps.line(line)
    assert [expectation.held for expectation in steps.expect.all] == [held]
    assert steps.tally.verdicts == 1


def test_what_was_not_scored_is_a_claim_that_fails():
    steps = DemoSteps(Client(), Expectations(), CallTally())
    steps.coverage()
    assert [(e.held, e.found) for e in steps.expect.all] == [(False, "no verdict")]
