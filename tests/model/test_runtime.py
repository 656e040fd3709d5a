"""A model folder and a dictionary folder become something that serves, or a clear refusal."""

import random
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from monitor.dictionary.bundle import load_dictionary
from monitor.dictionary.cards.statistics import FeatureStatistics
from monitor.dictionary.cards.statistics import save as save_statistics
from monitor.dictionary.formats import DictionaryCard, save_saelens
from monitor.dictionary.sae import InputNorm
from monitor.errors import BadRequest, DictionaryError, ModelError, MonitoringFailed
from monitor.model.engine.paged import Limits
from monitor.model.engine.requests import Finished, GenerationRequest, ScoreJob
from monitor.model.offline.residuals import Harvester
from monitor.model.runtime import Runtime, load_pair
from monitor.records import Clamp, Sampling, WatchPlan
from tests.model.tiny import Recorder, dictionary, encode_all, loaded_model, maxima, prompt


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    model, sae = tmp_path / "model", tmp_path / "dictionary"
    loaded = loaded_model()
    loaded.model.save_pretrained(model)
    loaded.tokenizer.save_pretrained(model)
    plain = replace(dictionary(), input_bias=None)
    save_saelens(sae, plain, DictionaryCard(model_name="tiny", hook_name="blocks.1.hook_resid_post", layer=1))
    digest = load_dictionary(sae).digest
    save_statistics(sae, FeatureStatistics(maxima(), torch.full((96,), 0.1), 1000, "test", digest))
    return model, sae


@pytest.mark.parametrize(("kind", "norm"), [("gpt2", InputNorm.CENTRED), ("llama", InputNorm.NONE)])
def test_a_dictionary_of_a_model_with_centred_weights(tmp_path: Path, kind: str, norm: InputNorm) -> None:
    """TransformerLens centres only where a layer norm makes the mean of a token meaningless, as in GPT-2."""
    model, sae = tmp_path / "model", tmp_path / "dictionary"
    loaded = loaded_model(kind)
    loaded.model.save_pretrained(model)
    loaded.tokenizer.save_pretrained(model)
    stated = replace(dictionary(), input_bias=None, input_norm=InputNorm.CENTRED)
    save_saelens(sae, stated, DictionaryCard(hook_name="blocks.2.hook_resid_post"))
    digest = load_dictionary(sae).digest
    save_statistics(sae, FeatureStatistics(maxima(), torch.full((96,), 0.1), 1000, "test", digest))
    parts, ids = load_pair(model, sae, device="cpu"), torch.tensor([prompt(3)])
    found = parts.dictionary.autoencoder
    assert found.input_norm is norm
    if kind == "gpt2":
        centred = loaded_model(kind)
        _centre_writing_weights(centred.model.transformer)
        residuals = Harvester(centred, 2).residuals(ids)
        assert float(residuals.mean(-1).abs().max()) < 1e-5
        wanted = replace(stated, input_norm=InputNorm.NONE).encode(residuals)
        torch.testing.assert_close(
            found.encode(Harvester(parts.loaded, 2).residuals(ids)), wanted, rtol=1e-4, atol=1e-5
        )


def _centre_writing_weights(decoder: Any) -> None:
    """Take the mean over the width out of everything that a GPT-2 writes into the residual stream."""
    writers = [decoder.wte.weight, decoder.wpe.weight]
    for layer in decoder.h:
        for part in (layer.attn.c_proj, layer.mlp.c_proj):
            writers += [part.weight, part.bias]
    for weight in writers:
        weight -= weight.mean(-1, keepdim=True)


@pytest.mark.slow
def test_everything_joins(folders: tuple[Path, Path]) -> None:
    parts = load_pair(*folders, device="cpu")
    assert parts.layer == 1
    runtime = Runtime(parts, WatchPlan((4, 9)), [30])
    runtime.start()
    try:
        prompt = runtime.tokenise("hello there", truncate=False, room=8, reply=False)
        done = threading.Event()
        observer = Recorder()
        runtime.scorer.submit(ScoreJob("s", prompt.ids, observer, observer), lambda _: done.set())
        assert done.wait(30)
        ended = threading.Event()
        request = GenerationRequest(
            "g", prompt.ids, Sampling(max_new_tokens=4), observer, observer, (Clamp(50, -1.0),)
        )
        runtime.engine.submit(
            request, lambda events: ended.set() if isinstance(events[-1][1], Finished) else None
        )
        assert ended.wait(30)
        inspected = runtime.inspect(prompt.ids, 5)
    finally:
        runtime.stop(5)
    residuals = runtime.harvester.residuals(torch.tensor([prompt.ids]))[0]
    wanted = encode_all(parts.dictionary.autoencoder, residuals) / maxima()
    assert (inspected[0].sink, inspected[0].features) == (True, ())
    for position, token in enumerate(inspected[1:], 1):
        found = [reading.feature for reading in token.features]
        assert found == wanted[position].topk(5).indices.tolist()
    assert observer.blocks[0].readings[:, 0] == pytest.approx(
        wanted[:, 4].float().numpy(), rel=1e-4, abs=1e-5
    )
    with pytest.raises(BadRequest, match="does not exist"):
        runtime.check_clamps([Clamp(96, 1.0)])


def test_a_model_that_only_reads_lets_go_of_what_it_does_not_need(folders: tuple[Path, Path]) -> None:
    parts = load_pair(*folders, device="cpu")
    whole = sum(p.numel() for p in parts.loaded.model.parameters())
    ids = (0, 70, 80, 90)
    wanted = encode_all(
        parts.dictionary.autoencoder, Harvester(parts.loaded, 1).residuals(torch.tensor([ids]))[0]
    )
    runtime = Runtime(parts, WatchPlan((4, 9)), limits=Limits(running=0), reads_only=True, streams=8)
    runtime.start()
    try:
        assert len(parts.loaded.layers) == 2
        assert sum(p.numel() for p in parts.loaded.model.parameters()) < 0.65 * whole
        done, observer = threading.Event(), Recorder()
        runtime.scorer.submit(ScoreJob("s", ids, observer, observer), lambda _: done.set())
        assert done.wait(30)
        assert runtime.can_see()
    finally:
        runtime.stop(5)
    read = (wanted / maxima())[:, [4, 9]].float().numpy()
    assert observer.blocks[0].readings == pytest.approx(read, rel=1e-4, abs=1e-5)


def test_nothing_is_inspected_where_the_model_computes_no_numbers(folders: tuple[Path, Path]) -> None:
    runtime = Runtime(load_pair(*folders, device="cpu"), WatchPlan((4, 9)))
    ids = runtime.tokenise("hello", truncate=False, room=0, reply=False).ids
    assert any(token.features for token in runtime.inspect(ids, 5))
    runtime.loaded.layers[0].register_forward_hook(lambda _module, _args, output: output * float("nan"))
    with pytest.raises(MonitoringFailed):
        runtime.inspect(ids, 5)


def test_an_inspected_character_of_several_tokens_is_whole(folders: tuple[Path, Path]) -> None:
    runtime = Runtime(load_pair(*folders, device="cpu"), WatchPlan((4, 9)))
    text = "a漢é🙂!"
    ids = runtime.tokenise(text, truncate=False, room=0, reply=False).ids
    shown = [token.text for token in runtime.inspect(ids, 5)]
    assert shown == list(runtime.token_texts(ids)), "as Score shows them"
    assert "".join(shown).endswith(text)


def test_layers(folders: tuple[Path, Path]) -> None:
    assert load_pair(*folders, layer=3, device="cpu").layer == 3
    with pytest.raises(ModelError, match="layers 0 to 3"):
        load_pair(*folders, layer=4, device="cpu")


def test_a_dictionary_of_another_width(folders: tuple[Path, Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    sae = dictionary("relu")
    wide = type(sae)(sae.activation, torch.randn(8, 48), torch.zeros(8), torch.randn(8, 48), torch.zeros(48))
    save_saelens(other, wide, DictionaryCard())
    with pytest.raises(DictionaryError, match=r"48 wide.*32 wide"):
        load_pair(folders[0], other, device="cpu")


def test_a_dictionary_without_statistics(folders: tuple[Path, Path]) -> None:
    (folders[1] / "statistics.safetensors").unlink()
    with pytest.raises(DictionaryError, match="dictionary describe"):
        load_pair(*folders, device="cpu")


@pytest.mark.parametrize("seed", range(5))
def test_no_text_has_fewer_tokens_than_its_bytes_allow(folders: tuple[Path, Path], seed: int) -> None:
    """What is refused by its bytes, before it is tokenised, could not have fitted."""
    chance = random.Random(seed)
    runtime = Runtime(load_pair(*folders, device="cpu"), WatchPlan((4, 9)))
    vocabulary = runtime.loaded.tokenizer
    longest = max(vocabulary.get_vocab().values(), key=lambda token: len(vocabulary.decode([token])))
    texts = [
        "".join(chance.choice(" aä😀\n-the") for _ in range(200)),
        vocabulary.decode([longest] * 50),
        "\u0000" * 99,
    ]
    for text in texts:
        ids = vocabulary(text, add_special_tokens=False)["input_ids"]
        assert len(ids) * runtime.longest_token >= len(text.encode())
