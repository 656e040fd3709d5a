"""Prompts that a model cannot run are refused before they reach the engine, and no token comes from another's row."""

from contextlib import contextmanager

import pytest
import torch

from monitor.errors import BadRequest, MonitorError
from monitor.model.engine.engine import Engine
from monitor.model.engine.requests import GenerationRequest, ScoreJob
from monitor.model.engine.scorer import Scorer
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.span import Span
from monitor.model.tap.tap import Tap
from monitor.records import FinishReason, Sampling
from tests.model.running import LAYER, Call, running
from tests.model.tiny import VOCABULARY, Recorder, dictionary, loaded_model, maxima, prompt


@pytest.mark.parametrize("ids", [(), (0, VOCABULARY), (0, -1)], ids=["none", "beyond", "negative"])
class TestRefused:
    @pytest.mark.slow
    def test_generations(self, ids: tuple[int, ...]) -> None:
        with running(loaded_model(), dictionary()) as run:
            with pytest.raises(BadRequest, match="token"):
                run.call(ids)
            assert run.call(prompt(4), new=3).finished().reason is FinishReason.LENGTH

    def test_scorings(self, ids: tuple[int, ...]) -> None:
        loaded = loaded_model()
        bank = FeatureBank(dictionary(), maxima(), (3, 4))
        scorer = Scorer(loaded, bank, Tap(bank, loaded.layers[LAYER]))
        recorder = Recorder()
        with pytest.raises(BadRequest, match="token"):
            scorer.submit(ScoreJob("a", ids, recorder, recorder), lambda _: None)


class Scripted:
    """A batcher that runs nothing: the test says what each pass laid out and drew."""

    static = False

    def __init__(self, loaded, limits, steps) -> None:
        self.steps = steps

    def start(self) -> None:
        self.steps.ready(64)

    def stop(self, timeout: float) -> None:
        pass

    def alive(self) -> bool:
        return True

    def running(self) -> int:
        return 0

    def add(self, request_id, prompt_ids, max_new_tokens) -> None:
        pass

    def remove(self, request_id) -> None:
        pass


@contextmanager
def scripted():
    loaded = loaded_model()
    bank = FeatureBank(dictionary(), maxima(), (3, 4))
    tap = Tap(bank, loaded.layers[LAYER])
    engine = Engine(loaded, bank, tap, batcher=Scripted)
    tap.attach()
    engine.start()
    yield engine
    tap.detach()


def test_a_span_without_rows_draws_no_token() -> None:
    with scripted() as engine:
        calls = {}
        for name in ("a", "b"):
            call = calls[name] = Call(prompt(3), Recorder())
            own = call.observer
            engine.submit(GenerationRequest(name, call.ids, Sampling(max_new_tokens=4), own, own), call.emit)
        # As transformers lays out a request of no tokens: its row of logits is that of the request before it.
        rows = len(calls["a"].ids)
        spans = [Span("a", 0, rows, 0, True), Span("b", rows, 0, 0, True)]
        with torch.no_grad():
            engine.before(spans, rows)
            ids = torch.tensor([calls["a"].ids])
            engine._loaded.model(input_ids=ids)
            drawn = engine.draw(torch.randn(2, VOCABULARY)).tolist()
            engine.after(spans, drawn, list(calls["a"].ids))
        assert not calls["a"].done.is_set()
        last = calls["b"].finished(1)
        assert isinstance(last.error, MonitorError)
        assert (last.reason, last.tokens_generated, calls["b"].text) == (FinishReason.ERROR, 0, "")
