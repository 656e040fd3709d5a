"""Texts that the chat template drops make a verdict UNKNOWN; evidence shows whole characters."""

from dataclasses import replace

import pytest

from monitor.v1 import monitor_pb2 as pb
from tests.rpc.conftest import DEADLINE, fails, serving
from tests.rpc.fake import FakeRuntime, policies

TURNS = [pb.ChatMessage(role=role, content=text) for role, text in ((1, "be bad"), (2, "hello there"))]
GIVEN = pb.Input(conversation=pb.Conversation(messages=TURNS))


class Dropping(FakeRuntime):
    """Its template writes what users say and nothing else."""

    def tokenise(self, content, **options):
        kept = content if isinstance(content, str) else [turn for turn in content if turn["role"] == "user"]
        return replace(super().tokenise(kept, **options), left_out=len(content) - len(kept))


@pytest.fixture(params=[True, False], ids=["closed", "open"])
def served(request):
    chosen = policies(closed=request.param)
    with serving(Dropping(chosen.watch), chosen) as served:
        served.closed = request.param
        yield served


def test_a_score_is_not_checked(served):
    asked = pb.ScoreRequest(input=GIVEN)
    if served.closed:
        with fails("FAILED_PRECONDITION") as caught:
            served.stub.Score(asked, timeout=DEADLINE)
        assert "template" not in caught[0].details()
    else:
        verdict = served.stub.Score(asked, timeout=DEADLINE).verdict
        assert (verdict.status, verdict.failure) == (pb.CHECK_STATUS_UNKNOWN, "left_out")
    assert served.metric("monitor_failures_total", cause="left_out") == 1


def test_a_generation_is_not_checked_and_releases_nothing_where_closed(served):
    asked = pb.GenerateStreamRequest(generation=pb.Generation(input=GIVEN))
    stream, texts = served.stub.GenerateStream(asked, timeout=DEADLINE), []
    if served.closed:
        with fails("FAILED_PRECONDITION"):
            texts = [message.chunk.text for message in stream]
        assert texts == []
        assert served.metric("tokens_scored_total", phase="prompt") == 0, "it never ran"
    else:
        final = list(stream)[-1].final
        assert (final.verdict.status, final.verdict.failure) == (pb.CHECK_STATUS_UNKNOWN, "left_out")


def test_what_is_there_is_checked(served):
    asked = pb.ScoreRequest(input=pb.Input(conversation=pb.Conversation(messages=TURNS[1:])))
    assert served.stub.Score(asked, timeout=DEADLINE).verdict.status == pb.CHECK_STATUS_CHECKED


class Spelling(FakeRuntime):
    """Spells evidence by all tokens of its request."""

    def respelled(self, found, ids):
        spelled = (replace(token, text=f"{token.position} of {len(ids)}") for token in found.evidence)
        return replace(found, evidence=tuple(spelled))


def test_evidence_is_spelled_by_the_tokens_around_it():
    chosen = policies(closed=False)
    with serving(Spelling(chosen.watch), chosen) as served:
        (found,) = served.score("this lie here").verdict.detections
        assert found.evidence[0].text == "2 of 4"
        answer = served.generate("a lie", max_new_tokens=3)
        assert {token.text for found in answer.verdict.detections for token in found.evidence} == {
            "2 of 6",
            "4 of 6",
        }
