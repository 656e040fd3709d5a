"""Models and dictionaries to measure on: random ones of a stated size, and the pairs that have a name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from monitor.dictionary.bundle import load_dictionary
from monitor.dictionary.sae import Activation, SparseAutoencoder
from monitor.model.load.model import LoadedModel, decoder_layers, load_model
from monitor.pairs.named_pair import NamedPair
from monitor.pairs.registry import named


@dataclass(frozen=True)
class Subject:
    """A model, a dictionary and the features' units."""

    name: str
    loaded: LoadedModel
    autoencoder: SparseAutoencoder
    maximum: torch.Tensor
    layer: int
    pair: NamedPair | None = None
    """The pair that it is, for which the shipped policies have locks."""


def demo(device: str, dtype: str) -> Subject:
    """The pair `tiny`."""
    return _of_pair("demo", "tiny", device, dtype)


def smollm2(device: str, dtype: str) -> Subject:
    """The pair `smollm2`."""
    return _of_pair("smollm2", "smollm2", device, dtype)


def _of_pair(name: str, pair: str, device: str, dtype: str) -> Subject:
    one = named(pair)
    loaded = load_model(one.model_path(), device=device, dtype=dtype)
    found = load_dictionary(one.dictionary_path())
    assert found.statistics is not None
    layer = found.card.layer or loaded.middle
    return Subject(name, loaded, found.autoencoder, found.statistics.maximum, layer, one)


def random_llama(device: str, dtype: str, *, features: int = 16384) -> Subject:
    """A Llama of 110 million random parameters (width 768, 12 layers, vocabulary 32,000) and a JumpReLU dictionary.

    Thresholds are set so that about 64 features are active per token, as in a trained dictionary.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    place = torch.device(
        "cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu")
    )
    kind = torch.float32 if dtype == "auto" else getattr(torch, dtype)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=768,
        intermediate_size=2048,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).to(place, kind).eval().requires_grad_(False)
    tokenizer = _tokenizer(config.vocab_size)
    loaded = LoadedModel(
        model,
        tokenizer,
        decoder_layers(model),
        768,
        2048,
        "random-llama-110m",
        "sha256:" + "0" * 64,
        place,
        kind,
    )
    encoder = torch.nn.functional.normalize(torch.randn(features, 768), dim=-1)
    scale = _residual_scale(loaded)
    quantile = scale * 2**0.5 * torch.erfinv(torch.tensor(1 - 128 / features))
    autoencoder = SparseAutoencoder(
        Activation.JUMPRELU,
        encoder,
        torch.zeros(features),
        encoder.clone(),
        torch.zeros(768),
        threshold=quantile.expand(features).clone(),
    )
    return Subject(loaded.name, loaded, autoencoder, torch.full((features,), float(quantile) * 2), 6)


MAKERS: dict[str, Callable[[str, str], Subject]] = {"demo": demo, "smollm2": smollm2, "random": random_llama}
"""By name; each is given a device and a number type."""


def _tokenizer(size: int) -> Any:
    """Words w0 … wN; only so that the engine has text to make."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(WordLevel({f"w{number}": number for number in range(size)}, unk_token="w0"))
    return PreTrainedTokenizerFast(tokenizer_object=core)


@torch.no_grad()
def _residual_scale(loaded: LoadedModel) -> float:
    """Standard deviation of a residual's projection on a random direction, at the middle layer."""
    ids = torch.randint(0, 32000, (4, 64), device=loaded.device)
    states = loaded.model(ids, output_hidden_states=True, use_cache=False).hidden_states[loaded.middle + 1]
    return float(states.float().std())
