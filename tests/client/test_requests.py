"""Plain values become requests, and values without a place are errors."""

from __future__ import annotations

import pytest

from monitor.client.requests import as_generation, as_input, as_severity
from monitor.v1 import monitor_pb2 as pb


def test_options_become_fields():
    made = as_generation(
        [{"role": "assistant", "content": "x"}],
        clamps={7: -1.0},
        stop=("a", "b"),
        top_k=3,
        top_p=0.5,
        session="s",
        labels={"team": "risk"},
        truncate=True,
        include_tokens=True,
        logprobs=0,
    )
    assert made == pb.Generation(
        input=pb.Input(
            conversation=pb.Conversation(messages=[pb.ChatMessage(role=pb.ROLE_ASSISTANT, content="x")]),
            truncate=True,
            session_id="s",
            labels={"team": "risk"},
        ),
        sampling=pb.Sampling(stop=["a", "b"], top_k=3, top_p=0.5),
        clamps=[pb.Clamp(feature=7, target=-1.0)],
        include_tokens=True,
        logprobs=0,
    )
    assert not as_generation("x").HasField("logprobs")
    everywhere = pb.Clamp(feature=7, target=-1.0, where=pb.CLAMP_WHERE_EVERYWHERE)
    assert list(as_generation("x", clamps=[everywhere]).clamps) == [everywhere]


@pytest.mark.parametrize(
    "wrong", [{"top_k": 1 << 40}, {"max_new_tokens": 1.5}, {"clamps": {-1: 0.0}}, {"stop": [1]}]
)
def test_values_without_a_place_are_errors(wrong):
    with pytest.raises((ValueError, TypeError)):
        as_generation("x", **wrong)


def test_texts_conversations_and_whole_inputs():
    assert as_input("a") == pb.Input(text="a")
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    found = as_input(iter(turns), labels={"a": "b"})
    assert [(m.role, m.content) for m in found.conversation.messages] == [
        (pb.ROLE_SYSTEM, "s"),
        (pb.ROLE_USER, "u"),
    ]
    assert dict(found.labels) == {"a": "b"}
    whole = pb.Input(text="a", session_id="one", labels={"x": "y"})
    other = as_input(whole, session="two", truncate=True)
    assert (whole.session_id, whole.truncate) == ("one", False)
    assert (other.session_id, other.truncate, dict(other.labels)) == ("two", True, {"x": "y"})


def test_what_is_left_out_is_not_set():
    made = as_generation("a")
    assert made == pb.Generation(input=pb.Input(text="a"), sampling=pb.Sampling())
    assert not made.sampling.HasField("temperature")
    assert as_generation("a", temperature=0.0).sampling.HasField("temperature")


def test_a_whole_generation_is_taken_as_it_is():
    whole = pb.Generation(input=pb.Input(text="a"))
    assert as_generation(whole) is whole
    with pytest.raises(ValueError, match="leave out seed, top_k"):
        as_generation(whole, seed=1, top_k=2)


@pytest.mark.parametrize("turn", [{"role": "robot", "content": "x"}, {"role": "user"}, {"content": "x"}, {}])
def test_what_is_no_turn(turn):
    with pytest.raises(ValueError, match="is no turn; write"):
        as_input([turn])


def test_severities_by_name():
    names = ("", "low", "medium", "high", "critical")
    assert [as_severity(name) for name in names] == [0, 1, 2, 3, 4]
    assert pb.Severity.Name(as_severity("high")) == "SEVERITY_HIGH"
    with pytest.raises(ValueError, match="'High' is no severity; write low, medium, high or critical"):
        as_severity("High")
