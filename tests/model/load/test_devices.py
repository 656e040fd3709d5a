"""A model on several devices: readings are those of the plain model, generations take turns.

There is one device here, so models are spread over memory and disk: accelerate is told that the machine is smaller.
"""

import importlib.util
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from monitor.dictionary.bundle import load_dictionary
from monitor.dictionary.cards.statistics import FeatureStatistics
from monitor.dictionary.cards.statistics import save as save_statistics
from monitor.dictionary.formats import DictionaryCard, save_saelens
from monitor.errors import ModelError
from monitor.model.engine.paged import Limits
from monitor.model.engine.requests import Finished, GenerationRequest, Released, ScoreJob, ScoreOutcome
from monitor.model.load.devices import device_of, parts_of, why_spread
from monitor.model.load.hook_points import Place, parse_place, site_of
from monitor.model.load.model import load_model
from monitor.model.offline.effects import Prompted
from monitor.model.offline.residuals import Harvester
from monitor.model.offline.steered_model import SteeredModel, unchanged
from monitor.model.runtime import Runtime, load_pair
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.late_probes import LaterTaps
from monitor.model.tap.tap import Tap, TapBuffers
from monitor.records import LaterProbe, Sampling, WatchPlan
from tests.model.engine.test_engine import CLAMPS
from tests.model.load.test_model import saved
from tests.model.running import WATCHED, Call
from tests.model.tiny import Recorder, dictionary, encode_all, loaded_model, maxima, plain_generate, prompt

accelerate = pytest.importorskip("accelerate", reason="models are spread with accelerate (extra spread)")

PLACES = (
    "blocks.0.hook_resid_pre",
    "blocks.0.hook_resid_post",
    "blocks.3.hook_resid_post",
    "layers.2.mlp.input",
)
"""The first two before what lies on the disk, the others in it."""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose memory holds about half of the small models; the rest stays on the disk."""
    from transformers.integrations import accelerate as integration

    monkeypatch.setattr(integration, "accelerate_max_memory", lambda _=None: {"cpu": 200_000})


def described(folder: Path, hook: str) -> Path:
    """A dictionary of a place, with the units of its features."""
    save_saelens(
        folder, replace(dictionary(), input_bias=None), DictionaryCard(model_name="tiny", hook_name=hook)
    )
    digest = load_dictionary(folder).digest
    save_statistics(folder, FeatureStatistics(maxima(), torch.full((96,), 0.1), 1000, "test", digest))
    return folder


def exact(folder: Path, place: Place, ids: tuple[int, ...]) -> np.ndarray:
    """Readings of a plain forward of the model on one device, in float64."""
    loaded, seen = load_model(folder, device="cpu", dtype="float64"), []
    handle = site_of(loaded.layers, place).register_forward_hook(lambda _m, _a, out: seen.append(out))
    with torch.no_grad():
        loaded.model(torch.tensor([list(ids)]), use_cache=False)
    handle.remove()
    x = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
    sae = replace(dictionary(), input_bias=None)
    return (encode_all(sae, x[0])[:, list(WATCHED)] / maxima()[list(WATCHED)]).numpy()


def scored(runtime: Runtime, texts: list[tuple[int, ...]]) -> list[tuple[ScoreOutcome, Recorder]]:
    found, ended = [(Recorder(), [], threading.Event()) for _ in texts], []
    for number, (ids, (observer, outcomes, done)) in enumerate(zip(texts, found, strict=True)):

        def keep(
            found: list[tuple[str, ScoreOutcome]], into: list = outcomes, done: threading.Event = done
        ) -> None:
            into.append(found[0][1])
            done.set()

        runtime.scorer.submit(ScoreJob(f"t{number}", ids, observer, observer), keep)
    for observer, outcomes, done in found:
        assert done.wait(60)
        ended.append((outcomes[0], observer))
    return ended


@pytest.mark.slow
@pytest.mark.parametrize("hook", PLACES)
@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox", "gemma3"])
@pytest.mark.usefixtures("small")
def test_scores_of_a_spread_model_are_those_of_the_plain_one(tmp_path: Path, kind: str, hook: str) -> None:
    folder, sae = saved(tmp_path / "model", kind), described(tmp_path / "sae", hook)
    parts = load_pair(folder, sae, device="spread")
    assert parts_of(parts.loaded.model) == ("cpu", "disk")
    assert any(p.is_meta for p in parts.loaded.layers[3].parameters())
    runtime = Runtime(parts, WatchPlan(WATCHED))
    runtime.start()
    try:
        texts = [prompt(number, longest=90) for number in range(6)]
        for _ in range(2):  # passes end in the middle, and the next one must find everything in place
            for ids, (outcome, observer) in zip(texts, scored(runtime, texts), strict=True):
                assert outcome.coverage.complete
                assert outcome.coverage.tokens_run == len(ids)
                [block] = observer.blocks
                wanted = exact(folder, parse_place(hook), ids)
                assert (wanted > 0).any()
                np.testing.assert_allclose(block.readings, wanted, rtol=1e-4, atol=1e-4)
        assert runtime.can_see()
    finally:
        runtime.stop(5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma3"])
@pytest.mark.usefixtures("small")
def test_a_spread_model_generates_like_the_plain_one(tmp_path: Path, kind: str) -> None:
    """Readings and clamps at prefill and decode, texts scored at the same time; requests take turns."""
    folder, sae = saved(tmp_path / "model", kind), described(tmp_path / "sae", "blocks.2.hook_resid_post")
    runtime = Runtime(
        load_pair(folder, sae, device="spread"),
        WatchPlan(WATCHED),
        limits=Limits(running=4, batch_tokens=16),
    )
    assert "spread over cpu, disk" in runtime.engine.why_separate
    plain, exact_sae = (
        load_model(folder, device="cpu", dtype="float64"),
        replace(dictionary(), input_bias=None),
    )
    runtime.start()
    try:
        calls = [(Call(prompt(n), Recorder()), clamps) for n in range(3) for clamps in ((), CLAMPS)]
        for number, (call, clamps) in enumerate(calls):
            asked = Sampling(max_new_tokens=4)
            runtime.engine.submit(
                GenerationRequest(
                    f"g{number}", call.ids, asked, call.observer, call.observer, clamps, include_tokens=True
                ),
                call.emit,
            )
        assert all(outcome.coverage.complete for outcome, _ in scored(runtime, [prompt(n) for n in range(4)]))
        for call, clamps in calls:
            assert call.finished().coverage.complete
            tokens, activations = plain_generate(
                plain.model, plain.layers[2], exact_sae, maxima(), call.ids, 4, clamps
            )
            assert [token.token_id for token in call.tokens] == tokens
            wanted = (activations[:, list(WATCHED)] / maxima()[list(WATCHED)]).numpy()
            np.testing.assert_allclose(call.readings, wanted, rtol=1e-4, atol=1e-4)
    finally:
        runtime.stop(5)


@pytest.mark.slow
def test_what_fits_one_device_is_served_in_full(tmp_path: Path) -> None:
    folder, sae = saved(tmp_path / "model", "llama"), described(tmp_path / "sae", "blocks.1.hook_resid_post")
    parts = load_pair(folder, sae, device="spread")
    assert parts_of(parts.loaded.model) == ()
    assert parts.loaded.devices == "cpu"
    runtime, events, ended = Runtime(parts, WatchPlan(WATCHED)), [], threading.Event()
    runtime.start()
    try:
        own = Recorder()
        request = GenerationRequest("g", prompt(3), Sampling(max_new_tokens=5), own, own, include_tokens=True)

        def emit(found):
            events.extend(event for _, event in found)
            if isinstance(events[-1], Finished):
                ended.set()

        runtime.engine.submit(request, emit)
        assert ended.wait(60)
    finally:
        runtime.stop(5)
    assert events[-1].coverage.complete
    parts = [event.tokens for event in events if isinstance(event, Released)]
    tokens = [token_id for part in parts if part is not None for token_id in part.token_ids]
    plain = load_model(folder, device="cpu", dtype="float64")
    wanted, _ = plain_generate(plain.model, plain.layers[1], dictionary(), maxima(), prompt(3), 5)
    assert tokens == wanted


@pytest.mark.usefixtures("small")
def test_tools_read_and_edit_a_spread_model(tmp_path: Path) -> None:
    folder, ids = saved(tmp_path / "model", "llama"), torch.tensor([prompt(3)])
    spread, whole = (Harvester(load_model(folder, device=device), 1) for device in ("spread", "cpu"))
    torch.testing.assert_close(spread.residuals(ids), whole.residuals(ids))
    with torch.no_grad():
        torch.testing.assert_close(spread.logits(ids, lambda x: 2 * x), whole.logits(ids, lambda x: 2 * x))
    chance = torch.zeros(1, 4)
    written = [SteeredModel(which, later=3).write(ids, unchanged, chance, 0) for which in (spread, whole)]
    assert written[0].tolist() == written[1].tolist()
    passes = [SteeredModel(which, later=3).read(ids, unchanged) for which in (spread, whole)]
    torch.testing.assert_close(passes[0].later, passes[1].later)
    sae = dictionary()
    effects = [Prompted(which, sae, maxima(), prompt(3)) for which in (spread, whole)]
    torch.testing.assert_close(effects[0].attribution(7), effects[1].attribution(7), rtol=1e-3, atol=1e-5)


@pytest.mark.usefixtures("small")
def test_weights_that_cannot_stay_on_the_disk_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="fits neither the GPUs nor memory"):
        load_model(saved(tmp_path, "mixtral"), device="spread")


def test_without_accelerate_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install 'sae-monitor\[spread\]'"):
        load_model(tmp_path / "never-read", device="spread")


def test_a_device_that_does_not_exist_names_those_that_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="write auto, cpu, cuda, cuda:N or spread"):
        load_model(tmp_path, device="everywhere")


@pytest.mark.parametrize("where", [1, "cuda:1", torch.device("cuda", 1)])
def test_a_layer_computes_where_its_hook_says_not_where_its_weights_lie(
    where: int | str | torch.device,
) -> None:
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module

    loaded = loaded_model()
    assert device_of(loaded.layers[2]) is None
    assert loaded.device_of(loaded.layers[2]) == torch.device("cpu")
    for _ in range(2):  # the second stands beside the first
        add_hook_to_module(loaded.layers[2], AlignDevicesHook(execution_device=where), append=True)
        assert loaded.device_of(loaded.layers[2]) == torch.device("cuda", 1)
    assert loaded.device_of(loaded.layers[1]) == torch.device("cpu")


def test_the_bank_lies_where_the_tapped_layer_computes(tmp_path: Path) -> None:
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module

    folder, sae = saved(tmp_path / "model", "llama"), described(tmp_path / "sae", "blocks.1.hook_resid_post")
    parts = load_pair(folder, sae, device="cpu")
    parts.loaded.model.hf_device_map = {"model.layers.1": "meta", "": "cpu"}
    add_hook_to_module(parts.loaded.layers[1], AlignDevicesHook(execution_device="meta"))
    assert Runtime(parts, WatchPlan(WATCHED)).tap.bank.unit.is_meta
    assert not Runtime(replace(parts, place=Place(2)), WatchPlan(WATCHED)).tap.bank.unit.is_meta


def test_the_tap_reads_on_the_banks_device() -> None:
    bank = FeatureBank(dictionary(), maxima(), WATCHED, device="meta")
    tap, buffers = Tap(bank, nn.Identity()), TapBuffers(bank, 8)
    assert tap.apply(torch.randn(8, 32), buffers) is None  # mixed devices would raise
    assert buffers.readings.is_meta


def test_a_later_probe_reads_on_the_banks_device() -> None:
    bank = FeatureBank(dictionary(), maxima(), WATCHED, device="meta")
    tap, buffers = Tap(bank, nn.Identity()), TapBuffers(bank, 8, static=True, later=4)
    layers = nn.ModuleList(nn.Identity() for _ in range(3))
    later = LaterTaps(layers, tap, tapped=0)
    later.add([LaterProbe(2, np.ones(32, np.float32), 0.0, 1.0, 4.0)])
    later.attach()
    tap.use(buffers)
    hidden = torch.randn(1, 8, 32)
    assert layers[2](hidden) is hidden  # mixed devices would raise


@pytest.mark.parametrize(
    ("placed", "said"),
    [
        ({"": 0}, ""),
        ({"model.layers.0": 0, "model.layers.1": torch.device("cuda", 0)}, ""),
        ({"model.layers.0": 0, "model.layers.1": 1, "lm_head": "cpu"}, "spread over cuda:0, cuda:1, cpu"),
        ({"": "disk"}, "stay on the disk, and continuous batching needs all of them on one device"),
    ],
)
def test_only_what_lies_on_several_devices_counts_as_spread(placed: dict, said: str) -> None:
    model = nn.Identity()
    model.hf_device_map = placed
    assert said in why_spread(model)
    assert bool(why_spread(model)) == bool(said)
