"""When clamps begin and end, and what the rules know after tokens were taken back."""

import numpy as np
import pytest

from monitor.policy.policy import Condition, WeightedFeature
from monitor.policy.policyset import PolicySet
from monitor.policy.schema.policy import Ema, Mean, Suppress
from monitor.records import Action, Clamp, ErrorTerm, Mode, Phase, TokenBlock
from tests.policy.conftest import block, policy, rule, word

ALL = "sha256:" + "0" * 64
SUPPRESS = {"action": Action.SUPPRESS, "threshold": 0.5}
RESPONSE = (Phase.RESPONSE,)


def started(*policies):
    return PolicySet(tuple(policies), ALL).start(word)


def response(readings, start):
    return block(readings, start, Phase.RESPONSE)


class TestClampsInForce:
    def walk(self, observer, scores, start=1):
        """Whether clamps hold after each token."""
        observer.observe(block([[0.0]]))
        return [bool(observer.observe(block([[s]], start + i)).suppressing) for i, s in enumerate(scores)]

    def test_from_the_first_token(self):
        observer = started(policy(name="a", clamps=(Clamp(3, -1.0),), clamps_always=True))
        decision = observer.first
        assert (decision.clamps, decision.suppressing) == ((Clamp(3, -1.0),), ("a",))

    def test_from_the_detection_to_the_end(self):
        observer = started(policy(rule(**SUPPRESS), clamps=(Clamp(3, -1.0),)))
        assert self.walk(observer, [0, 0.6, 0, 0, 0]) == [False, True, True, True, True]

    def test_for_so_many_tokens_after_the_score_was_last_high(self):
        observer = started(policy(rule(**SUPPRESS), clamps=(Clamp(3, -1.0),), hold=2))
        assert self.walk(observer, [0.6, 0, 0, 0, 0.6, 0, 0.6, 0, 0, 0]) == [
            *[True, True, False, False],
            *[True, True, True, True, False, False],
        ]

    def test_hysteresis(self):
        observer = started(policy(rule(**SUPPRESS), clamps=(Clamp(3, -1.0),), hold=1, release_below=0.4))
        # 0.2 is the release level: 0.3 keeps clamps that hold, and begins none.
        assert self.walk(observer, [0.3, 0.6, 0.3, 0.3, 0.1, 0.3]) == [False, True, True, True, False, False]

    def test_one_block_or_many_is_the_same(self):
        scores = np.random.default_rng(1).random(60)
        make = lambda: started(  # noqa: E731
            policy(
                rule(**SUPPRESS, pooling=Ema(half_life=2)),
                clamps=(Clamp(3, -1.0),),
                hold=3,
                release_below=0.8,
            )
        )
        whole, single = make(), make()
        whole.observe(block([[0.0]]))
        steps = self.walk(single, scores)
        assert bool(whole.observe(block(scores[:, None], 1)).suppressing) == steps[-1]
        assert 0 < sum(steps) < 60

    def test_a_combination_clamps_once_it_has_held_for_so_many_tokens(self):
        part = (Condition("a", features=(WeightedFeature(3, 1.0),), threshold=0.5, lasts=1),)
        one = rule(features=(), action=Action.SUPPRESS, when="a", hold=3)
        observer = started(policy(one, conditions=part, clamps=(Clamp(3, -1.0),), hold=2))
        found = self.walk(observer, [0.6, 0, 0.6, 0.6, 0.6, 0.6, 0, 0, 0])
        assert found == [False, False, False, False, True, True, True, False, False]

    def test_a_rule_that_fires_in_a_long_conversation_clamps(self):
        lengths = ((4, 5.0), (None, 0.5))
        one = rule(**SUPPRESS, pooling=Mean(min_tokens=1), session=True, lengths=lengths)
        policies = PolicySet((policy(one, clamps=(Clamp(3, -1.0),), hold=8),), ALL)
        policies.start(word, session="s").observe(block([[0.4]] * 10))
        decision = policies.start(word, session="s").observe(
            TokenBlock(Phase.PROMPT, 0, (1, 2), np.array([[0], [4.0]], np.float32))
        )
        assert [found.threshold for found in decision.detections] == [0.5]
        assert decision.suppressing == ("p",)

    def test_a_prompt_clamps_the_response_for_a_while(self):
        observer = started(policy(rule(**SUPPRESS), clamps=(Clamp(3, -1.0),), hold=2))
        assert observer.observe(block([[0.0], [0.9]])).suppressing == ("p",)
        found = [bool(observer.observe(response([[0.0]], 2 + i)).suppressing) for i in range(3)]
        assert found == [True, False, False]

    def test_shadow_never_clamps(self):
        shadow = policy(rule(**SUPPRESS, mode=Mode.SHADOW), clamps=(Clamp(3, -1.0),))
        observer = started(shadow)
        decision = observer.observe(block([[0.0], [0.9]]))
        assert (decision.clamps, decision.suppressing) == ((), ())

    def test_what_suppression_needs(self):
        drop = Clamp(4, -1.0, error_term=ErrorTerm.DROP)
        needs = PolicySet((policy(rule(**SUPPRESS), clamps=(Clamp(3, -1.0), drop)),), ALL).suppression
        assert needs.whole
        assert [(plan.policy, plan.features) for plan in needs.plans] == [("p", (3, 4))]


class TestFields:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"when": "always", "hold": 3}, "goes with `when: detected`"),
            ({"release_below": 0.5}, "needs `hold: TOKENS`"),
            ({"rewind": 3}, "Extra inputs"),
            ({"error_term": "forget"}, "'keep' or 'drop'"),
        ],
    )
    def test_what_contradicts_itself_is_refused(self, fields, message):
        with pytest.raises(ValueError, match=message):
            Suppress.model_validate({"target": -1.0, **fields})
