"""Tokens as the page shows them."""

from dataclasses import dataclass, field

import numpy as np

from monitor.http.page.tokens import TokenStrip, all_features, begins
from monitor.model.prompts import Prompt
from monitor.policy.rules.token_scores import TokenScores
from monitor.records import Failure, FeatureReading, Phase, ScoredTokens
from monitor.telemetry.decisions.tokens import Stretch
from tests.policy.conftest import policy, rule
from tests.rpc.fake import Inspected


@dataclass
class Trail:
    stretches: list = field(default_factory=list)


def texts(ids):
    return [f"t{i}" for i in ids]


def strip(trail):
    return TokenStrip(TokenScores((policy(rule("a", threshold=0.5)),)), trail, texts)


def scored(start, *values, phase=Phase.PROMPT):
    readings = np.asarray(values, np.float32)[:, None]
    return ScoredTokens(phase, start, tuple(range(10, 10 + len(values))), np.asarray([3]), readings)


def test_tokens_have_their_readings_and_shares_and_say_what_rules_pass_over():
    values = ((0, 0, 9.0), (1, 0, 1.0), (2, 0, 0.01), (3, 0, 2.0))
    trail = Trail([Stretch(Phase.PROMPT, 0, 4, (3,), values)])
    found = strip(trail).take([scored(0, 9, 1, 0.01, 2)])
    assert [token.get("rules") for token in found] == [None, [[0, 2.0]], None, None]
    assert [token.get("passed_over", False) for token in found] == [True, False, False, True]
    assert [token["text"] for token in found] == ["t10", "t11", "t12", "t13"]
    assert found[1]["readings"] == [{"feature": 3, "reading": 1.0}]


def test_stretches_are_read_once_and_belong_to_their_phase():
    trail = Trail([Stretch(Phase.PROMPT, 0, 2, (), ((1, 0, 0.5),))])
    taking = strip(trail)
    assert [token.get("rules") for token in taking.take([scored(0, 0, 0.5)])] == [None, [[0, 1.0]]]
    trail.stretches.append(Stretch(Phase.RESPONSE, 2, 0, failure=Failure.TAP_MISSED))
    trail.stretches.append(Stretch(Phase.RESPONSE, 2, 1, (), ((0, 0, 1.0),)))
    (token,) = taking.take([None, scored(2, 1.0, phase=Phase.RESPONSE)])
    assert (token["rules"], token["phase"], token["position"]) == ([[0, 2.0]], "response", 2)
    assert taking.ids == [10, 11, 10]


def test_all_features_are_short():
    found = [Inspected(0, 1, "a", (FeatureReading(5, 0.123456), FeatureReading(2, 0.1)))]
    assert all_features(found) == [[[5, 0.1235], [2, 0.1]]]


def test_turns_begin_where_the_conversation_up_to_them_ends():
    whole = [0, 1, 2, 3, 4, 5]
    assert begins(whole, [Prompt((0, 1)), Prompt((0, 1, 2, 9)), Prompt((0, 1, 2, 3, 4, 5, 6))]) == [2, 3, 6]
