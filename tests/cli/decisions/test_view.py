"""Records of the log as text: a line, or everything, and never the words of a request unless they were logged."""

import dataclasses
import io

import pytest
from rich.console import Console

from monitor.cli.decisions.view import as_json, fired, line, moment, replayable, whole
from monitor.records import Action, Coverage, Digests, Failure, Mode, Status
from monitor.telemetry.decisions.record import DecisionRecord
from tests.telemetry.decisions.test_record import DETECTION, RECORD

CONTENT = {"seq": 12, "kind": "decision"}


def printed(form):
    console = Console(width=110, record=True, file=io.StringIO())
    console.print(form)
    return console.export_text()


def test_a_line_says_what_fired_and_where():
    assert line(CONTENT, RECORD).plain.split() == [
        *("12", "2026-11-22", "12:37:01Z", "suppress", "Generate"),
        *("deception/stated", "high", "response@5", "3f2a", "gateway"),
    ]
    shadow = dataclasses.replace(DETECTION, mode=Mode.SHADOW, policy="a\x1b[31m")
    assert fired(shadow) == "a\\x1b[31m/stated high response@5 (shadow)"


def test_a_line_of_a_request_that_was_not_checked():
    bare = DecisionRecord(
        "r" * 20,
        0.0,
        0.1,
        "Score",
        "refused",
        Status.UNKNOWN,
        Action.BLOCK,
        Digests("m", "d", "p"),
        Coverage(3, 1),
    )
    text = line(CONTENT, dataclasses.replace(bare, failure=Failure.NON_FINITE)).plain
    assert "UNKNOWN (non_finite)  nothing fired  refused  rrrrrrrr" in text


def test_lines_that_hold_no_record():
    gap = {"seq": 3, "kind": "gap", "since": 0.0, "time": 60.0, "lost": 7, "reason": "disk full"}
    assert line(gap, None).plain == (
        "     3  7 decisions are missing here: 1970-01-01 00:00:00Z to 1970-01-01 00:01:00Z, disk full"
    )
    assert line({"seq": 4, "kind": "later"}, None).plain == "     4  (a line of kind 'later')"
    assert moment(86399.9) == "1970-01-01 23:59:59Z"


def test_everything_that_a_record_holds():
    content = {**CONTENT, "labels": {"team": "risk"}, "prompt": {"tokens": 9, "hmac": "f" * 64, "key": "k1"}}
    text = printed(whole(content, RECORD))
    for part in (
        "record  12, 2026-11-22 12:37:01Z, after 0.125 s",
        "method  Generate, answered, ended by length",
        "labels  team=risk",
        "prompt  9 tokens, ffffffffffffffff… with key k1",
        "response  4 tokens",
        "replay  not possible: neither readings nor text were logged",
        "deception / stated",
    ):
        assert part in text, part
    assert "secret" not in text, "evidence is shown without its tokens"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"readings": {}}, "from its readings"),
        ({"text": {}}, "from its text"),
        ({"readings": {}, "text": {}}, "from its readings"),
        ({}, "not possible: neither readings nor text were logged"),
    ],
)
def test_what_a_record_can_be_replayed_from(more, said):
    assert replayable({**CONTENT, **more}) == said


def test_texts_that_were_logged_are_shown_as_text():
    prompt = [{"role": "user", "content": "hi\x1b[31m"}, {"role": "assistant", "content": ""}]
    text = printed(whole({**CONTENT, "text": {"prompt": prompt, "response": "yes"}}, RECORD))
    assert "user: hi\\x1b[31m\nresponse: yes" in "\n".join(line.rstrip() for line in text.splitlines())
    assert "prompt: alone" in printed(whole({**CONTENT, "text": {"prompt": "alone"}}, RECORD))


def test_json_is_that_of_the_log():
    assert as_json({"a": "é"}) == '{"a": "é"}'
