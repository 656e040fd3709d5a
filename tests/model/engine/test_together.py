"""Rules beside the engine: requests that run together are scored together, and come out as they do alone."""

import pytest

from monitor.policy.policyset import PolicySet
from monitor.policy.schema.policy import Ema, Mean
from monitor.records import Action, Coverage
from tests.model.running import WATCHED, Call, running
from tests.model.tiny import dictionary, loaded_model, prompt
from tests.policy.conftest import policy, rule


class Watched:
    """Hands every batch on to the rules of a set and keeps the blocks of every request."""

    def __init__(self, policies):
        self.rules, self.blocks, self.sizes = policies.rules, {}, []

    def observe_batch(self, blocks):
        self.sizes.append(len(blocks))
        for number, slot in enumerate(blocks.slots.tolist()):
            self.blocks.setdefault(slot, []).append(blocks.block(number))
        return self.rules.observe_batch(blocks)


@pytest.fixture
def policies():
    rules = [
        rule(f"r{i}", features=((f, 1.0), (f + 1, -0.5)), pooling=pooling, threshold=0.05 * (i + 1))
        for i, (f, pooling) in enumerate(zip(WATCHED[:-1:2], [Ema(half_life=2.0), Mean()] * 8, strict=False))
    ]
    stop = rule("stop", features=((WATCHED[3], 1.0),), threshold=0.9, hold=2, action=Action.BLOCK)
    every = rule("all", features=[(f, 0.001) for f in WATCHED], threshold=99.0)
    return PolicySet((policy(*rules, stop, every),), "")


@pytest.mark.slow
def test_requests_that_run_together_are_scored_together(policies):
    watched = Watched(policies)
    requests = [policies.start(str) for _ in range(24)]
    with running(loaded_model(), dictionary()) as run:
        calls: list[Call] = [
            run.call(prompt(n), new=4 + n % 9, observer=watched, observed=own, include_tokens=False)
            for n, own in enumerate(requests)
        ]
        ended = [call.finished() for call in calls]
    assert max(watched.sizes) > 4
    matched = 0
    for own, end in zip(requests, ended, strict=True):
        alone, blocks = policies.start(str), watched.blocks[own.slot]
        for block in blocks:
            alone.observe(block)
        tokens = sum(len(block.token_ids) for block in blocks)
        assert end.coverage == Coverage(
            tokens, tokens, tokens_judged=end.coverage.tokens_judged, tokens_sinks=1
        )
        verdict = own.verdict(end.coverage)
        assert verdict == alone.verdict(end.coverage)
        matched += verdict.matched
    assert matched > 2
