"""Scoring without generation: exact, complete, and never clean where a tap did not run."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from monitor.errors import MonitoringFailed, Overloaded, Unavailable
from monitor.model.engine import scorer as scorer_module
from monitor.model.engine.requests import ScoreJob, ScoreOutcome
from monitor.model.engine.scorer import Scorer
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.tap import Tap
from monitor.records import Action, Failure
from tests.model.running import LAYER, WATCHED
from tests.model.tiny import CONFIGS, KINDS, Recorder, dictionary, encode_all, loaded_model, maxima, prompt
from tests.waiting import wait_for


@contextmanager
def scoring(
    kind: str = "llama", sae_kind: str = "jumprelu", **options: object
) -> Iterator[tuple[Scorer, Tap]]:
    loaded, sae = loaded_model(kind), dictionary(sae_kind)
    bank = FeatureBank(sae, maxima(), WATCHED)
    tap = Tap(bank, loaded.layers[LAYER])
    scorer = Scorer(loaded, bank, tap, batch_tokens=256, **options)
    tap.attach()
    scorer.start()
    try:
        yield scorer, tap
    finally:
        scorer.stop(5)
        tap.detach()


class Waiting:
    """Collects outcomes by request."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self.outcomes: dict[str, ScoreOutcome] = {}
        self.observers: dict[str, Recorder] = {}
        self.events: dict[str, threading.Event] = {}

    def submit(
        self, name: str, ids: tuple[int, ...], observer: Recorder | None = None, **options: object
    ) -> None:
        self.observers[name] = observer or Recorder()
        self.events[name] = threading.Event()

        own = self.observers[name]
        self.scorer.submit(ScoreJob(name, ids, own, own, **options), self.done)

    def done(self, outcomes: Sequence[tuple[str, ScoreOutcome]]) -> None:
        for name, outcome in outcomes:
            self.outcomes[name] = outcome
            self.events[name].set()

    def result(self, name: str) -> ScoreOutcome:
        assert self.events[name].wait(60)
        return self.outcomes[name]


def plain(kind: str, sae_kind: str, ids: tuple[int, ...]) -> np.ndarray:
    exact, seen = loaded_model(kind, dtype=torch.float64), []

    def hook(_module: object, _args: object, output: object) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    handle = exact.layers[LAYER].register_forward_hook(hook)
    with torch.no_grad():
        exact.model(torch.tensor([list(ids)]), use_cache=False)
    handle.remove()
    return (encode_all(dictionary(sae_kind), seen[0][0])[:, list(WATCHED)] / maxima()[list(WATCHED)]).numpy()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "sae_kind"), [("llama", k) for k in KINDS] + [(k, "jumprelu") for k in CONFIGS if k != "llama"]
)
def test_mixed_lengths_equal_each_text_alone(kind: str, sae_kind: str) -> None:
    with scoring(kind, sae_kind) as (scorer, _):
        waiting = Waiting(scorer)
        texts = {f"t{n}": prompt(n, longest=100) for n in range(12)}
        for name, ids in texts.items():
            waiting.submit(name, ids)
        for name, ids in texts.items():
            outcome = waiting.result(name)
            assert outcome.coverage.complete
            assert outcome.coverage.tokens_run == len(ids)
            [block] = waiting.observers[name].blocks
            np.testing.assert_allclose(block.readings, plain(kind, sae_kind, ids), rtol=1e-4, atol=1e-5)


def test_tokens_carry_their_readings() -> None:
    with scoring() as (scorer, _):
        waiting = Waiting(scorer)
        waiting.submit("a", prompt(3), include_tokens=True, tokens_truncated=4)
        outcome = waiting.result("a")
    block = waiting.observers["a"].blocks[0]
    assert outcome.coverage.tokens_truncated == 4
    tokens = outcome.tokens.records([str(i) for i in outcome.tokens.token_ids])
    assert [t.token_id for t in tokens] == list(prompt(3))
    for position, token in enumerate(tokens):
        wanted = {f: v for f, v in zip(WATCHED, block.readings[position], strict=True) if v > 0}
        assert {r.feature: r.reading for r in token.readings} == pytest.approx(wanted)


def test_a_missing_tap_is_unknown_and_closed_by_default() -> None:
    with scoring() as (scorer, tap):
        tap.detach()
        waiting = Waiting(scorer)
        waiting.submit("closed", prompt(1))
        waiting.submit("open", prompt(2), Recorder(on_error=Action.ALLOW))
        closed, left_open = waiting.result("closed"), waiting.result("open")
    assert isinstance(closed.error, MonitoringFailed)
    assert (closed.error.cause, closed.coverage.tokens_scored) == (Failure.TAP_MISSED, 0)
    assert (left_open.error, left_open.coverage.complete) == (None, False)
    assert waiting.observers["open"].failures == [Failure.TAP_MISSED]


def test_a_pass_that_fails_ends_its_texts_and_not_the_thread() -> None:
    with scoring() as (scorer, _):
        waiting = Waiting(scorer)

        def crash(*_args: object) -> None:
            raise RuntimeError("no memory")

        handle = scorer._loaded.layers[0].register_forward_pre_hook(crash)
        waiting.submit("bad", prompt(1))
        assert waiting.result("bad").error.cause is Failure.PASS_FAILED
        assert waiting.observers["bad"].failures == [Failure.PASS_FAILED]
        handle.remove()
        waiting.submit("good", prompt(1))
        assert waiting.result("good").coverage.complete


def test_rules_that_cannot_even_fail_take_no_other_text_with_them() -> None:
    class Broken(Recorder):
        def observe(self, block):
            raise RuntimeError("observe")

        def failed(self, cause):
            raise RuntimeError("failed")

    with scoring() as (scorer, _):
        gate = threading.Event()

        class Slow(Recorder):
            def observe(self, block):
                assert gate.wait(60)
                return super().observe(block)

        waiting = Waiting(scorer)
        waiting.submit("first", prompt(1), Slow())
        while scorer.queue_depth():
            threading.Event().wait(0.01)
        # These three share a pass.
        waiting.submit("before", prompt(3))
        waiting.submit("broken", prompt(3), Broken())
        waiting.submit("behind", prompt(3))
        gate.set()
        assert isinstance(waiting.result("broken").error, MonitoringFailed)
        assert waiting.result("broken").error.cause is Failure.RULE_ERROR
        assert not waiting.result("broken").coverage.complete
        for name in ("before", "behind"):
            assert waiting.result(name).coverage.complete
            assert waiting.observers[name].failures == []
        assert scorer.healthy()


def test_a_full_queue_is_refused_and_a_stopped_scorer_too() -> None:
    with scoring(waiting=2) as (scorer, _):
        gate = threading.Event()

        class Slow(Recorder):
            def observe(self, block):
                gate.wait(30)
                return super().observe(block)

        waiting = Waiting(scorer)
        waiting.submit("first", prompt(1), Slow())
        while scorer.queue_depth():
            threading.Event().wait(0.01)
        waiting.submit("second", prompt(1))
        waiting.submit("third", prompt(1))
        with pytest.raises(Overloaded):
            waiting.submit("fourth", prompt(1))
        scorer.cancel("third")
        gate.set()
        assert waiting.result("second").coverage.complete
        scorer.stop(5)
        with pytest.raises(Unavailable):
            waiting.submit("fifth", prompt(1))
        assert "third" not in waiting.outcomes


@pytest.mark.parametrize("alone", [False, True])
def test_while_it_waits_its_threads_end_unless_nothing_else_computes(alone: bool, monkeypatch) -> None:
    waits, ended = [], []

    class Idle(Scorer):
        def _waits(self) -> bool:
            waits.append(True)
            return False

    monkeypatch.setattr(scorer_module, "_IDLE", 0.01)
    monkeypatch.setattr(scorer_module, "release", lambda: ended.append(True))
    loaded = loaded_model()
    bank = FeatureBank(dictionary(), maxima(), WATCHED)
    scorer = Idle(loaded, bank, Tap(bank, loaded.layers[LAYER]), alone=alone)
    scorer.start()
    wait_for(lambda: len(waits) > 3)
    scorer.stop(5)
    assert bool(ended) is not alone
