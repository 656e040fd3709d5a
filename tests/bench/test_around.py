"""What stands around a watched engine: policies as they are shipped, metrics, and a log of every request."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from monitor.bench import around
from monitor.bench.around import FEATURES, POLICIES, policies_for, shipped, watching
from monitor.bench.models import demo
from monitor.model.engine.requests import Finished
from monitor.records import Action, Blocks, Coverage, FinishReason, Phase, TokenBlock
from monitor.telemetry.decisions.reader import read
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def subject():
    return demo("cpu", "auto")


@pytest.mark.slow
def test_the_bundled_pair_has_the_shipped_policies_and_others_have_policies_like_them(subject):
    own = policies_for(subject)
    assert {rule.action for policy in own.policies for rule in policy.rules} == {Action.ALERT}
    everything = shipped(subject, subject.pair)
    assert [policy.name for policy in own.policies] == [policy.name for policy in everything.policies]
    assert len(own.policies) == POLICIES
    like = policies_for(replace(subject, name="another", pair=None))
    assert len(like.policies) == POLICIES
    for policy in like.policies:
        (rule,) = policy.rules
        assert len(rule.features) == FEATURES
        assert all(float(subject.maximum[feature.index]) > 0 for feature in rule.features)
        assert sum(feature.weight for feature in rule.features) == pytest.approx(1.0)


def test_every_request_is_counted_and_logged(subject, monkeypatch):
    policies = policies_for(replace(subject, name="another", pair=None))
    folders = []
    writer = around.LogWriter
    monkeypatch.setattr(
        around, "LogWriter", lambda folder, *a: (folders.append(folder), writer(folder, *a))[1]
    )
    with watching(policies) as watch:
        judge, trail = watch.open()
        rows = np.zeros((3, len(policies.watch)), np.float32)
        watch.observer.observe_batch(Blocks.of([(judge.slot, TokenBlock(Phase.PROMPT, 0, (1, 2, 3), rows))]))
        assert trail.tokens[Phase.PROMPT] == 3
        watch.close("r-1", judge, Finished(FinishReason.LENGTH, Coverage(3, 3), 3, tokens_generated=2))
        wait_for(lambda: list(read(Path(folders[0]))))
        (record,) = read(Path(folders[0]))
    assert (record["request_id"], record["finish"], record["tokens_generated"]) == ("r-1", "length", 2)
    assert json.dumps(record)
    assert not Path(folders[0]).exists()
