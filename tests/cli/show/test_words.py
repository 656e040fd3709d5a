"""Words for the values of the protocol's enums, and for numbers."""

import pytest

from monitor.cli.show import words
from monitor.v1 import monitor_pb2 as pb


def test_every_value_has_its_word():
    assert [words.action(value) for value in (1, 2, 3, 4)] == ["allow", "alert", "suppress", "block"]
    assert [words.severity(value) for value in (1, 2, 3, 4)] == ["low", "medium", "high", "critical"]
    assert words.phase(pb.PHASE_RESPONSE) == "response"
    assert set(words.ACTION_STYLE) == set(pb.Action.values()) - {0}
    assert set(words.SEVERITY_STYLE) == set(pb.Severity.values()) - {0}


def test_a_newer_servers_values_are_no_error():
    assert words.action(99) == "value 99"
    assert words.severity(99) == words.phase(99) == "value 99"
    assert words.finish(99) == "unknown reason 99"
    assert words.finish(pb.FINISH_REASON_POLICY) == "a policy ended it"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((1, "record"), "1 record"),
        ((0, "record"), "0 records"),
        ((1234, "record"), "1,234 records"),
        ((1, "policy", "policies"), "1 policy"),
        ((2, "policy", "policies"), "2 policies"),
    ],
)
def test_things_are_counted(arguments, said):
    assert words.counted(*arguments) == said


@pytest.mark.parametrize(
    ("digest", "said"), [("sha256:" + "ab" * 32, "abababababab"), ("", "-"), ("abc", "abc")]
)
def test_digests_are_shortened(digest, said):
    assert words.short_digest(digest) == said
