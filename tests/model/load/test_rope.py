"""Models whose rotary frequencies depend on the length of a sequence: each text is read as it is read alone."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from monitor.model.engine.scorer import Scorer
from monitor.model.load.model import LoadedModel
from monitor.model.load.rope import LengthRope
from monitor.model.offline.residuals import Harvester
from monitor.model.offline.steered_model import SteeredModel, padded
from monitor.model.selftest.capture import capture
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.tap import Tap
from monitor.records import Clamp, Where
from tests.model.engine.test_scorer import Waiting
from tests.model.running import LAYER, WATCHED, running
from tests.model.tiny import (
    CONTEXT,
    LLAMA_LIKE,
    dictionary,
    encode_all,
    maxima,
    plain_generate,
    prompt,
    wrapped,
)

SHORT = 32
"""Sequences beyond this length have other frequencies."""
_HALF = 4
_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * _HALF,
    "long_factor": [1.0, 3.0, 9.0, 20.0],
    "original_max_position_embeddings": SHORT,
}
_LIVELY = {"initializer_range": 0.08}
_MSCALE = {"short_mscale": 1.1, "long_mscale": 1.3}
ROPES = {
    "phi3": ("phi3", {"rope_parameters": _LONGROPE, "original_max_position_embeddings": SHORT}),
    "phimoe": (
        "phimoe",
        {
            "rope_parameters": _LONGROPE | _MSCALE,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
        },
    ),
    "dynamic": (
        "llama",
        {
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
            "max_position_embeddings": SHORT,
        },
    ),
}
LENGTHS = (5, 20, SHORT - 1, SHORT, SHORT + 1, 47, 80, CONTEXT - 10)


def model(kind: str, dtype: torch.dtype = torch.float32) -> LoadedModel:
    torch.manual_seed(0)
    family, given = ROPES[kind]
    config = AutoConfig.for_model(
        family, **(LLAMA_LIKE | _LIVELY | given), bos_token_id=0, eos_token_id=1, pad_token_id=0
    )
    experts = {"experts_implementation": "eager"} if "num_local_experts" in given else {}
    return wrapped(AutoModelForCausalLM.from_config(config, **experts), family, dtype)


def text(length: int) -> tuple[int, ...]:
    return (*prompt(length), *prompt(length + 1, 200), *prompt(length + 2, 200))[:length]


def alone(kind: str, ids: tuple[int, ...]) -> torch.Tensor:
    """Residuals of a text in a pass of transformers of its own, by a model that has read nothing before."""
    exact, seen = model(kind, torch.float64), []
    layer = exact.layers[LAYER]
    layer.register_forward_hook(lambda _m, _a, out: seen.append(out[0] if isinstance(out, tuple) else out))
    with torch.no_grad():
        exact.model(torch.tensor([ids]), use_cache=False)
    return seen[0][0]


@contextmanager
def scoring(loaded: LoadedModel) -> Iterator[Scorer]:
    bank = FeatureBank(dictionary(), maxima(), WATCHED)
    tap = Tap(bank, loaded.layers[LAYER])
    scorer = Scorer(loaded, bank, tap, batch_tokens=2048)
    tap.attach()
    scorer.start()
    try:
        yield scorer
    finally:
        scorer.stop(5)
        tap.detach()


@pytest.mark.parametrize("kind", ROPES)
class TestEveryTextIsReadAsAlone:
    def wanted(self, kind: str, ids: tuple[int, ...]) -> np.ndarray:
        read = encode_all(dictionary(), alone(kind, ids))
        return (read[:, list(WATCHED)] / maxima()[list(WATCHED)]).numpy()

    def test_the_lengths_matter(self, kind: str) -> None:
        """Or else nothing below could fail."""
        loaded, ids = model(kind), text(20)
        beside = Harvester(loaded, LAYER).residuals(torch.tensor([ids]), [CONTEXT])[0]
        assert float((beside - alone(kind, ids)).norm() / beside.norm()) > 0.01

    @pytest.mark.slow
    def test_scored_together(self, kind: str) -> None:
        with scoring(model(kind)) as scorer:
            waiting = Waiting(scorer)
            for _ in range(2):  # what was read before does not count either
                for length in LENGTHS:
                    waiting.submit(f"t{length}", text(length))
                for length in LENGTHS:
                    assert waiting.result(f"t{length}").coverage.complete
                    block = waiting.observers[f"t{length}"].blocks[-1]
                    wanted = self.wanted(kind, text(length))
                    np.testing.assert_allclose(block.readings, wanted, rtol=1e-4, atol=1e-4)

    def test_read_in_batches(self, kind: str) -> None:
        loaded, texts = model(kind), [text(length) for length in LENGTHS]
        ids, real = padded(texts)
        lengths = real.sum(1).tolist()
        harvester = Harvester(loaded, LAYER)
        found = harvester.residuals(ids, lengths)
        steered = SteeredModel(harvester).read(ids, lambda x, first: x, lengths).edited
        captured = capture(loaded, [harvester.place], texts)[harvester.place]
        for row, own in enumerate(texts):
            wanted = alone(kind, own).float()
            for read in (found[row, : len(own)], steered[row, : len(own)], captured[row]):
                torch.testing.assert_close(read, wanted, rtol=1e-4, atol=1e-4)

    @pytest.mark.slow
    @pytest.mark.parametrize("clamps", [(), (Clamp(3, -1.0), Clamp(40, -2.0, Where.EVERYWHERE))])
    def test_generated_together_and_across_the_limit(self, kind: str, clamps: tuple[Clamp, ...]) -> None:
        """Prompts on both sides of the limit, longer than a pass, and generations that cross it."""
        exact, sae = model(kind, torch.float64), dictionary()
        with running(model(kind), sae) as run:
            assert "rotary frequencies" in run.engine.why_separate
            calls = [
                run.call(text(length), new=6, clamps=clamps) for length in (5, SHORT - 3, SHORT, 40, 100)
            ]
            for call in calls:
                end = call.finished()
                assert end.coverage.complete
                tokens = [token.token_id for token in call.tokens]
                for count in range(len(call.ids), len(tokens) + 1):
                    exact.model(
                        torch.tensor([[0]])
                    )  # transformers keeps the frequencies of the last long text
                    wanted, read = plain_generate(
                        exact.model, exact.layers[LAYER], sae, maxima(), tuple(tokens[:count]), 0, clamps
                    )
                    assert wanted == tokens[:count]
                    last = (read[-1, list(WATCHED)] / maxima()[list(WATCHED)]).numpy()
                    np.testing.assert_allclose(call.readings[count - 1], last, rtol=1e-4, atol=1e-4)


def test_where_no_served_length_changes_them_requests_are_batched() -> None:
    loaded = model("phi3")
    object.__setattr__(loaded, "context", SHORT)
    with running(loaded, dictionary()) as run:
        assert not run.engine.why_separate


def test_regimes() -> None:
    longrope, dynamic = LengthRope.of(model("phi3").model), LengthRope.of(model("dynamic").model)
    assert [longrope.regime(n) for n in (1, SHORT, SHORT + 1)] == [(1, 32), (1, 32), (33, 1 << 30)]
    assert [dynamic.regime(n) for n in (SHORT, SHORT + 1, 50)] == [(1, 32), (33, 33), (50, 50)]
    assert longrope.changes_within(SHORT + 1)
    assert not longrope.changes_within(SHORT)
