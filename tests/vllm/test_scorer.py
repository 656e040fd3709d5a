"""Texts that vLLM runs to score them, without vLLM."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from monitor.errors import BadRequest, MonitoringFailed, Overloaded, TooLong, Unavailable
from monitor.model.engine.readout import Taken
from monitor.model.engine.requests import Lease, ScoreJob
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.span import Span
from monitor.records import Action, Failure, Phase
from monitor.vllm.scorer import CoreScorer, SharedSteps
from tests.model.tiny import CONTEXT, Recorder, dictionary, loaded_model, maxima

IDS = (0, 5, 6, 7, 8, 9)


@dataclass
class Batching:
    """Takes texts and runs nothing by itself."""

    names: list = field(default_factory=list)
    removed: list = field(default_factory=list)
    lives: bool = True

    def add(self, request_id, prompt_ids, max_new_tokens):
        self.names.append(request_id)

    def remove(self, request_id):
        self.removed.append(request_id)

    def alive(self):
        return self.lives


class Texts:
    """A scorer over a batching that the test plays."""

    def __init__(self, **options):
        self.batching = Batching()
        self.scorer = CoreScorer(loaded_model(), lambda: self.batching, **options)
        self.bank = FeatureBank(dictionary(), maxima(), range(3, 9))
        self.outcomes = []

    def submit(self, seen, ids=IDS, name="one", **more):
        job = ScoreJob(name, ids, seen, seen, **more)
        self.scorer.submit(job, lambda found: self.outcomes.extend(found))
        return self.batching.names[-1]

    def run(self, spans, ids, value=1.0):
        self.scorer.before(spans)
        rows = np.full((len(ids), 6), value, np.float32)
        self.scorer.after(spans, ids, lambda count: Taken(self.bank, rows[:count], 6))


@pytest.fixture
def texts():
    return Texts()


def test_a_text_runs_in_parts_beside_others(texts):
    seen = Recorder()
    name = texts.submit(seen)
    texts.run([Span("other", 0, 2, 0, False), Span(name, 2, 4, 0, False)], [1, 2, *IDS[:4]])
    assert not texts.outcomes
    texts.run([Span(name, 0, 2, 4, True)], IDS[4:])
    ((request, outcome),) = texts.outcomes
    assert request == "one"
    assert outcome.coverage.complete
    assert outcome.coverage.tokens_run == len(IDS)
    assert tuple(token for block in seen.blocks for token in block.token_ids) == IDS
    assert texts.batching.removed == [name]
    assert texts.scorer.running() == 0


def test_what_the_model_said_in_a_text_is_a_response(texts):
    seen = Recorder()
    name = texts.submit(seen, prompt=2)
    texts.run([Span(name, 0, 6, 0, True)], IDS)
    assert [(block.phase, len(block.token_ids)) for block in seen.blocks] == [
        (Phase.PROMPT, 2),
        (Phase.RESPONSE, 4),
    ]


def test_an_evicted_text_is_judged_once(texts):
    seen = Recorder()
    name = texts.submit(seen)
    texts.run([Span(name, 0, 4, 0, False)], IDS[:4])
    texts.run([Span(name, 0, 6, 0, True)], IDS)
    assert tuple(token for block in seen.blocks for token in block.token_ids) == IDS


@pytest.mark.parametrize(
    ("spans", "ids"),
    [((0, 6, 0), (0, 5, 6, 7, 8, 10)), ((0, 4, 2), IDS[2:])],
    ids=["other tokens", "tokens left out"],
)
def test_what_ran_otherwise_is_not_scored(texts, spans, ids):
    seen = Recorder()
    name = texts.submit(seen)
    texts.run([Span(name, *spans, True)], ids)
    ((_, outcome),) = texts.outcomes
    assert isinstance(outcome.error, MonitoringFailed)
    assert outcome.coverage.tokens_scored == 0
    assert texts.scorer.unscored_passes() == 1
    assert texts.scorer.clean_passes() == 0


def test_readings_that_are_no_numbers(texts):
    seen = Recorder(on_error=Action.ALLOW)
    name = texts.submit(seen)
    texts.run([Span(name, 0, 6, 0, True)], IDS, value=np.nan)
    ((_, outcome),) = texts.outcomes
    assert outcome.coverage.tokens_scored == 0
    assert seen.failures == [Failure.NON_FINITE]


def test_a_text_that_nobody_waits_for_is_dropped(texts):
    name = texts.submit(Recorder())
    texts.scorer.cancel("one")
    texts.scorer.cancel("one")
    assert texts.batching.removed == [name]
    texts.run([Span(name, 0, 6, 0, True)], IDS)
    assert not texts.outcomes


def test_a_text_that_cannot_be_dropped_or_given_back_has_ended_all_the_same(texts, monkeypatch):
    def stuck(*_):
        raise KeyError("planted")

    lease = Lease(slice(0, 1), stuck)
    name = texts.submit(Recorder(), lease=lease)
    lease.release()
    monkeypatch.setattr(texts.batching, "remove", stuck)
    texts.run([Span(name, 0, 6, 0, True)], IDS)
    assert texts.outcomes[0][1].coverage.complete


def test_vllm_that_dies_ends_every_text(texts):
    texts.submit(Recorder())
    texts.scorer.died()
    assert isinstance(texts.outcomes[0][1].error, Unavailable)


def test_what_is_refused():
    texts = Texts(waiting=1)
    with pytest.raises(BadRequest):
        texts.submit(Recorder(), ())
    with pytest.raises(TooLong):
        texts.submit(Recorder(), (5,) * (CONTEXT + 1))
    texts.submit(Recorder())
    with pytest.raises(Overloaded):
        texts.submit(Recorder(), name="two")
    with pytest.raises(BadRequest, match="as it grows"):
        texts.scorer.open_stream(None, None)
    texts.scorer.cancel("one")
    texts.batching.lives = False
    with pytest.raises(Unavailable):
        texts.submit(Recorder())


class Engine:
    def __init__(self):
        self.lost_ones = []

    def scored(self, request_id):
        return 42

    def plain(self, request_id):
        return True

    def lost(self, request_id):
        self.lost_ones.append(request_id)


def test_texts_and_generations_are_told_apart(texts):
    engine = Engine()
    steps = SharedSteps(engine, lambda: texts.scorer)
    name = texts.submit(Recorder(), include_tokens=True)
    assert steps.scored("one") == 42
    assert steps.scored(name) == 0
    assert steps.plain("one")
    assert not steps.plain(name)
    steps.lost("one")
    assert engine.lost_ones == ["one"]
    steps.lost(name)
    assert isinstance(texts.outcomes[0][1].error, MonitoringFailed)
