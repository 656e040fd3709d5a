"""Every family that users bring: layers found, readings and clamps of the batched engine against plain float64."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from structlog.testing import capture_logs
from transformers import AutoConfig, AutoModelForCausalLM

from monitor.dictionary.bundle import Dictionary
from monitor.dictionary.cards.statistics import FeatureStatistics
from monitor.dictionary.formats import DictionaryCard
from monitor.dictionary.sae import SparseAutoencoder
from monitor.errors import ModelError
from monitor.model.engine.paged import Batcher, Limits
from monitor.model.engine.scorer import Scorer
from monitor.model.engine.serial import why_not_batched
from monitor.model.engine.startup_check import check_causal, check_prefixes, rehearse
from monitor.model.load.hook_points import ATTN_OUT, MLP_OUT, Place, Side
from monitor.model.load.model import LoadedModel
from monitor.model.offline.residuals import Harvester
from monitor.model.runtime import LoadedPair, Runtime
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.tap import Tap
from monitor.records import Clamp, WatchPlan, Where
from tests.model.engine.test_scorer import Waiting
from tests.model.families import (
    FALLBACK,
    FAMILIES,
    PICKING,
    RECURRENT,
    SEPARATE,
    TEXT,
    WRAPPERS,
    family_model,
)
from tests.model.running import LAYER, WATCHED, Running, running
from tests.model.tiny import (
    COMMON,
    CONFIGS,
    CONTEXT,
    WIDTH,
    dictionary,
    encode_all,
    loaded_model,
    maxima,
    plain_generate,
    prompt,
    wrapped,
)

CLAMPS = (Clamp(3, -1.0), Clamp(40, -2.0, Where.EVERYWHERE), Clamp(41, 0.5))
NO_MLP = ("opt",)
"""Families whose MLP is no module of its own."""
WEIGHED = ("doge",)
"""Families that multiply the residual stream before they add to it."""
ADDED_INSIDE = {"bloom": (ATTN_OUT, MLP_OUT), "mpt": (MLP_OUT,)}
"""Families with modules that add the residual stream themselves."""


@contextmanager
def scoring(loaded: LoadedModel, sae: SparseAutoencoder) -> Iterator[Scorer]:
    bank = FeatureBank(sae, maxima(), WATCHED)
    tap = Tap(bank, loaded.layers[LAYER])
    scorer = Scorer(loaded, bank, tap, batch_tokens=256)
    tap.attach()
    scorer.start()
    try:
        yield scorer
    finally:
        scorer.stop(5)
        tap.detach()


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(FALLBACK))
def test_where_batching_fails_its_rehearsal_requests_take_turns(kind: str) -> None:
    """Generations of prompts of several lengths, some longer than a pass, against plain float64."""
    exact, sae = family_model(kind, torch.float64), dictionary()
    bundle = Dictionary(
        sae, DictionaryCard(), FeatureStatistics(maxima(), torch.full((96,), 0.1), 1), "sha256:0", Path()
    )
    pair = LoadedPair(family_model(kind), bundle, Place(LAYER))
    runtime = Runtime(pair, WatchPlan(WATCHED), range(96), limits=Limits(running=8, batch_tokens=24))
    assert not runtime.engine.why_separate
    with capture_logs() as told:
        runtime.start()
    try:
        assert "failed its test at the start" in runtime.engine.why_separate
        [line] = [line for line in told if line["event"].startswith("every pass of this model runs one")]
        assert line["why"] == runtime.engine.why_separate
        run = Running(runtime.engine, runtime.tap, runtime.tap.bank, maxima())
        calls = [(run.call(prompt(n), new=5, clamps=c), c) for n in range(3) for c in ((), CLAMPS)]
        for call, clamps in calls:
            assert call.finished().coverage.complete
            tokens, activations = plain_generate(
                exact.model, exact.layers[LAYER], sae, maxima(), call.ids, 5, clamps
            )
            assert [token.token_id for token in call.tokens] == tokens
            wanted = (activations[:, list(WATCHED)] / maxima()[list(WATCHED)]).numpy()
            # Gemma 4 norms queries, keys and values, which makes more of float32's rounding in so small a model.
            rounding = 2e-4 if kind == "gemma4_text" else 1e-5
            np.testing.assert_allclose(call.readings, wanted, rtol=1e-4, atol=rounding)
    finally:
        runtime.stop(5)


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra"])
def test_a_model_that_reads_in_both_directions_is_refused(kind: str) -> None:
    config = AutoConfig.for_model(
        kind, **COMMON, intermediate_size=64, max_position_embeddings=CONTEXT, pad_token_id=0
    )
    loaded = wrapped(AutoModelForCausalLM.from_config(config), kind, torch.float32)
    with pytest.raises(ModelError, match="does not continue texts from left to right"):
        check_causal(loaded, prompt(3)[:10])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "kind", ["llama", "gpt2", "mixtral", "gemma2", "mamba", "rwkv", "qwen3_next", "doge"]
)
def test_models_that_read_from_left_to_right_are_not(kind: str, dtype: torch.dtype) -> None:
    make = family_model if kind in FAMILIES else loaded_model
    check_causal(make(kind, dtype=dtype), prompt(3)[:10])


def beginnings(loaded: LoadedModel, *, cached: bool = True) -> None:
    check_prefixes(loaded, loaded.layers[LAYER], prompt(3)[:10], cached=cached)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("kind", list(PICKING))
def test_a_model_that_reads_a_beginning_otherwise_in_a_longer_text_is_refused(
    kind: str, cached: bool
) -> None:
    with pytest.raises(ModelError, match="Set context_limit to 16") as refused:
        beginnings(family_model(kind), cached=cached)
    assert "its attention picks 16 of the tokens before" in str(refused.value)


@pytest.mark.parametrize("kind", list(PICKING))
def test_it_is_not_where_its_context_holds_no_more_than_it_attends_to(kind: str) -> None:
    beginnings(replace(family_model(kind), context=16))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [*CONFIGS, *(kind for kind in FAMILIES if kind not in CONFIGS)])
def test_models_that_read_beginnings_alike_are_not(kind: str, dtype: torch.dtype) -> None:
    beginnings((family_model if kind in FAMILIES else loaded_model)(kind, dtype=dtype))


class TestWhatDependsOnTheText:
    def changed(self, when: object) -> LoadedModel:
        """A model whose second layer adds what depends on a pass's length and first token."""
        loaded = loaded_model()

        def more(_module: object, args: tuple) -> tuple:
            x = args[0]
            return (x * (1.5 if when(x.shape[1], float(x[0, 1 % x.shape[1], 0])) else 1.0), *args[1:])

        loaded.layers[1].register_forward_pre_hook(more)
        return loaded

    @pytest.mark.parametrize("cached", [True, False])
    def test_the_number_of_tokens(self, cached: bool) -> None:
        with pytest.raises(ModelError, match=r"in parts, otherwise.*Use another model"):
            beginnings(self.changed(lambda tokens, _: tokens > 15), cached=cached)

    def test_a_past(self) -> None:
        with pytest.raises(ModelError, match=r"in parts, otherwise.*Use another model"):
            beginnings(self.changed(lambda tokens, _: tokens == 1))

    def test_one_text_alone_is_rounding(self) -> None:
        seen: list[float] = []

        def first_text(tokens: int, value: float) -> bool:
            seen.append(value)
            return tokens > 15 and value == seen[0]

        beginnings(self.changed(first_text))
        assert len(set(seen)) > 1, "a second text was tried"


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(PICKING))
def test_such_a_model_does_not_start(kind: str) -> None:
    bundle = Dictionary(
        dictionary(),
        DictionaryCard(),
        FeatureStatistics(maxima(), torch.full((96,), 0.1), 1),
        "sha256:0",
        Path(),
    )
    pair = LoadedPair(family_model(kind), bundle, Place(LAYER))
    runtime = Runtime(pair, WatchPlan(WATCHED), range(96), limits=Limits(running=8, batch_tokens=24))
    with pytest.raises(ModelError, match="Set context_limit to 16"):
        runtime.start()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*TEXT, *WRAPPERS])
def test_readings_and_clamps_at_prefill_and_decode(kind: str) -> None:
    exact, sae = family_model(kind, torch.float64), dictionary()
    with running(family_model(kind), sae) as run:
        calls = [(run.call(prompt(n), new=5, clamps=c), c) for n in range(3) for c in ((), CLAMPS)]
        for call, clamps in calls:
            assert call.finished().coverage.complete
            tokens, activations = plain_generate(
                exact.model, exact.layers[LAYER], sae, maxima(), call.ids, 5, clamps
            )
            assert [token.token_id for token in call.tokens] == tokens
            wanted = (activations[:, list(WATCHED)] / maxima()[list(WATCHED)]).numpy()
            np.testing.assert_allclose(call.readings, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", list(SEPARATE))
def test_families_that_are_not_batched_are_scored(kind: str) -> None:
    exact, sae = Harvester(family_model(kind, torch.float64), LAYER), dictionary()
    with scoring(family_model(kind), sae) as scorer:
        waiting = Waiting(scorer)
        texts = {f"t{n}": prompt(n) for n in range(4)}
        for name, ids in texts.items():
            waiting.submit(name, ids)
        for name, ids in texts.items():
            assert waiting.result(name).coverage.complete
            x = _residual(exact, ids)
            wanted = (encode_all(sae, x)[:, list(WATCHED)] / maxima()[list(WATCHED)]).numpy()
            [block] = waiting.observers[name].blocks
            np.testing.assert_allclose(block.readings, wanted, rtol=1e-4, atol=1e-5 + 2e-6 * wanted.max())


@pytest.mark.parametrize("kind", list(ADDED_INSIDE))
def test_a_module_that_adds_the_residual_stream_itself_is_refused(kind: str) -> None:
    for point in ADDED_INSIDE[kind]:
        with pytest.raises(ModelError, match="adds the residual stream itself"):
            Harvester(family_model(kind), Place(1, point))


@pytest.mark.parametrize("kind", [k for k in FAMILIES if k not in (*ADDED_INSIDE, *RECURRENT)])
def test_a_layer_adds_its_attention_and_its_mlp(kind: str) -> None:
    """Which shows that the points are the right ones: before + attention + MLP = after."""
    loaded = family_model(kind, torch.float64)
    ids = prompt(3)
    for layer in (0, 2):
        before = Place(layer - 1) if layer else Place(0, side=Side.INPUT)
        places = {"before": before, "attention": Place(layer, ATTN_OUT), "after": Place(layer)}
        if kind not in NO_MLP:
            places["mlp"] = Place(layer, MLP_OUT)
        found = {name: _residual(Harvester(loaded, place), ids) for name, place in places.items()}
        assert all(x.shape == (len(ids), WIDTH) for x in found.values())
        if kind in (*NO_MLP, *WEIGHED):
            continue
        total = found["before"] + found["attention"] + found["mlp"]
        torch.testing.assert_close(total, found["after"], rtol=1e-4, atol=1e-4)


def _residual(harvester: Harvester, ids: tuple[int, ...]) -> torch.Tensor:
    return harvester.residuals(torch.tensor([list(ids)]))[0]


@pytest.mark.parametrize("kind", [*CONFIGS, *FAMILIES])
def test_what_cannot_be_batched_is_known_before_it_is_tried(kind: str) -> None:
    loaded = family_model(kind) if kind in FAMILIES else loaded_model(kind)
    assert bool(why_not_batched(loaded)) == (kind in SEPARATE)


class TestRehearsal:
    def rehearsed(self, loaded: LoadedModel, plain: LoadedModel) -> None:
        with running(loaded, dictionary(), batcher=Batcher) as run:
            rehearse(run.engine, plain, prompt(3), 30)

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", ["llama", "gemma3", "qwen3_vl"])
    def test_passes_where_batching_computes_the_same(self, kind: str) -> None:
        make = family_model if kind in FAMILIES else loaded_model
        self.rehearsed(make(kind), make(kind))

    @pytest.mark.slow
    def test_refuses_a_family_that_reads_a_wrong_past(self) -> None:
        loaded = family_model("gpt_neo")
        with pytest.raises(ModelError, match="does not compute the same"):
            self.rehearsed(loaded, loaded)

    def test_refuses_a_family_that_crashes_at_the_first_decoded_token(self) -> None:
        loaded = family_model("deepseek_v3")
        with pytest.raises(ModelError, match="cannot be generated from"):
            self.rehearsed(loaded, loaded)
