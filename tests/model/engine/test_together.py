"""Rules beside the engine: requests that run together are scored together, and come out as they do alone."""

import pytest

from monitor.policy.policyset import PolicySet
from monitor.policy.schema.policy import Ema, Mean
from monitor.records import Action, Coverage
from tests.model.running import WATCHED, running
from tests.model.tiny import dictionary, loaded_model, prompt
from tests.policy.conftest import policy, rule


class Recording:
    """Hands everything on to the rules and keeps the blocks."""

    def __init__(self, inner):
        self.inner, self.blocks = inner, []

    @property
    def lead(self):
        return self.inner

    def begin(self):
        return self.inner.begin()

    def observe(self, block):
        self.blocks.append(block)
        return self.inner.observe(block)

    def failed(self, cause):
        return self.inner.failed(cause)


@pytest.fixture
def policies():
    rules = [
        rule(f"r{i}", features=((f, 1.0), (f + 1, -0.5)), pooling=pooling, threshold=0.05 * (i + 1))
        for i, (f, pooling) in enumerate(zip(WATCHED[:-1:2], [Ema(half_life=2.0), Mean()] * 8, strict=False))
    ]
    stop = rule("stop", features=((WATCHED[3], 1.0),), threshold=0.9, hold=2, action=Action.BLOCK)
    every = rule("all", features=[(f, 0.001) for f in WATCHED], threshold=99.0)
    return PolicySet((policy(*rules, stop, every),), "")


def test_requests_that_run_together_are_scored_together(policies, monkeypatch):
    sizes = []
    ahead = policies._batch.ahead
    monkeypatch.setattr(policies._batch, "ahead", lambda work: (sizes.append(len(work)), ahead(work))[1])
    with running(loaded_model(), dictionary()) as run:
        calls = [
            run.call(prompt(n), new=4 + n % 9, observer=Recording(policies.start(str)), include_tokens=False)
            for n in range(24)
        ]
        ended = [call.finished() for call in calls]
    assert max(sizes) > 4
    matched = 0
    for call, end in zip(calls, ended, strict=True):
        alone = policies.start(str)
        for block in call.observer.blocks:
            alone.observe(block)
        tokens = sum(len(block.token_ids) for block in call.observer.blocks)
        assert end.coverage == Coverage(tokens, tokens)
        verdict = call.observer.inner.verdict(end.coverage)
        assert verdict == alone.verdict(end.coverage)
        matched += verdict.matched
    assert matched > 2
