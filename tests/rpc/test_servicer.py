"""Every method of the service: what its answer holds of what ran."""

import pytest

from monitor.v1 import monitor_pb2 as pb
from tests.rpc.conftest import DEADLINE, fails, fields, generation, serving
from tests.rpc.fake import FakeRuntime, policies


@pytest.fixture(scope="module")
def served():
    with serving() as running:
        yield running


def digests(served):
    return pb.Digests(
        model=served.runtime.model_digest,
        dictionary=served.runtime.dictionary_digest,
        policies=policies().digest,
    )


def test_score_answers_with_verdict_digests_and_tokens_where_asked_for(served):
    plain = served.score("a lie")
    assert plain.digests == digests(served)
    assert [found.policy for found in plain.verdict.detections] == ["deception"]
    assert len(plain.request_id) == 32
    assert not plain.tokens
    asked = served.score("a lie", include_tokens=True)
    assert asked.request_id != plain.request_id
    assert [(t.position, t.text) for t in asked.tokens][-1] == (2, "lie")
    assert [[r.feature for r in t.readings] for t in asked.tokens][-1] == [7]


def test_generate_answers_with_text_verdict_and_digests(served):
    answer = served.generate("one two end", max_new_tokens=8)
    assert answer.text.split() == ["one", "two"]
    assert (answer.finish_reason, answer.digests) == (pb.FINISH_REASON_STOP, digests(served))
    assert (answer.verdict.status, answer.refusal) == (pb.CHECK_STATUS_CHECKED, "")
    assert served.generate("one two", max_new_tokens=1).finish_reason == pb.FINISH_REASON_LENGTH


def test_a_stream_says_what_one_piece_says(served):
    whole = served.generate("one lie", max_new_tokens=4, include_tokens=True, logprobs=1)
    messages = list(served.stream("one lie", max_new_tokens=4, include_tokens=True, logprobs=1))
    *parts, last = messages
    assert last.HasField("final")
    assert "".join(m.chunk.text for m in parts if m.HasField("chunk")) == whole.text
    assert [t for m in parts if m.HasField("chunk") for t in m.chunk.tokens] == list(whole.tokens)
    assert [one for m in parts if m.HasField("chunk") for one in m.chunk.logprobs] == list(whole.logprobs)
    assert [one.token.text for one in whole.logprobs] == ["one ", "lie ", "one ", "lie "]
    assert not served.generate("one lie", max_new_tokens=4).logprobs
    told = [m.detection.policy for m in parts if m.HasField("detection")]
    assert told == [found.policy for found in whole.verdict.detections]
    assert (last.final.finish_reason, last.final.digests) == (whole.finish_reason, whole.digests)
    assert last.final.verdict == whole.verdict
    assert len({m.request_id for m in messages}) == 1


def test_the_policies_in_force_are_listed(served):
    listed = served.stub.ListPolicies(pb.ListPoliciesRequest(), timeout=DEADLINE)
    assert {one.name for one in listed.policies} == {"weapons", "deception"}
    assert listed.digests == digests(served)


def test_a_reload_that_finds_nothing_new_changes_nothing(served):
    told = served.stub.ReloadPolicies(pb.ReloadPoliciesRequest(), timeout=DEADLINE)
    assert (told.changed, list(told.added), list(told.removed)) == (False, [], [])
    assert told.digests == digests(served)


def test_inspection_tells_features_of_every_token_and_what_was_cut():
    chosen = policies()
    with serving(FakeRuntime(chosen.watch, context=4), chosen) as served:
        told = served.stub.Inspect(
            pb.InspectRequest(input=pb.Input(text="a b c d e", truncate=True), top_k=2), timeout=DEADLINE
        )
        assert [token.text for token in told.tokens] == ["<bos>", "c", "d", "e"]
        assert {tuple(r.feature for r in token.features) for token in told.tokens} == {(0, 1)}
        assert (told.coverage.tokens_run, told.coverage.tokens_scored) == (4, 4)
        assert told.coverage.tokens_truncated == 2
        assert told.digests == digests(served)


def test_a_wrong_message_is_named_by_its_field(served):
    with fails("INVALID_ARGUMENT") as caught:
        served.stub.Inspect(pb.InspectRequest(), timeout=DEADLINE)
    assert fields(caught[0])[0].startswith("input")
    with fails("INVALID_ARGUMENT") as caught:
        served.stub.Generate(
            pb.GenerateRequest(generation=generation("one", temperature=-1.0)), timeout=DEADLINE
        )
    assert fields(caught[0]) == ["generation.sampling.temperature"]
