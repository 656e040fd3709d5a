"""A model as wide as the large dictionary, and readings of its scorer; for processes that measure memory."""

from __future__ import annotations

import random
import threading

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from monitor.dictionary.bundle import load_dictionary
from monitor.model.engine.requests import ScoreJob
from monitor.model.load.hook_points import Place
from monitor.model.load.model import LoadedModel, decoder_layers
from monitor.model.offline.residuals import Harvester
from monitor.model.runtime import LoadedPair, Runtime
from monitor.records import WatchPlan
from tests.dictionary.large import FEATURES, WIDTH
from tests.model.tiny import Recorder, tokenizer

IDS = [0, 40, 41, 42, 90, 17]


def model() -> LoadedModel:
    """One layer of width 4096 with as little inside as possible."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "llama",
        vocab_size=258,
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=32,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=1,
    )
    made = AutoModelForCausalLM.from_config(config).float().eval().requires_grad_(False)
    layers, place = decoder_layers(made), torch.device("cpu")
    return LoadedModel(
        made, tokenizer(), layers, WIDTH, 64, "wide", "sha256:" + "0" * 64, place, torch.float32
    )


def residuals() -> Tensor:
    """What the layer gives for IDS, `[tokens, WIDTH]`, BOS left out."""
    return Harvester(model(), 0).residuals(torch.tensor([IDS]))[0, 1:]


def read(folder: str, chosen: list[int], more: int) -> list[list[float]]:
    """Activations of the chosen features at IDS without BOS, as the scorer reads them, with `more` watched as well."""
    dictionary = load_dictionary(folder)
    others = random.Random(0).sample(range(FEATURES), more)
    watched = tuple(dict.fromkeys([*chosen, *others]))
    runtime = Runtime(LoadedPair(model(), dictionary, Place(0)), WatchPlan(watched))
    observer, done = Recorder(), threading.Event()
    runtime.start()
    try:
        runtime.scorer.submit(ScoreJob("s", tuple(IDS), observer, observer), lambda _: done.set())
        assert done.wait(60)
    finally:
        runtime.stop(5)
    rows = [row for block in observer.blocks for row in block.readings.tolist()]
    return [row[: len(chosen)] for row in rows[-len(IDS) + 1 :]]
