"""A model and a dictionary on disk, with policies that are known to fire on one text and not on another."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from monitor.dictionary.cards import statistics
from monitor.dictionary.cards.statistics import FeatureStatistics
from monitor.model.offline.residuals import Harvester
from monitor.model.runtime import LoadedPair, load_pair
from monitor.pairs import tiny
from tests.cli.small_pair import write_small_pair
from tests.model.tiny import maxima

SPEAKS = "I want power and money, and I will keep it all."
SILENT = "see a cat in the rain"


@dataclass(frozen=True)
class Scene:
    """What a server needs, and what to expect of it."""

    flags: dict[str, Any]
    alerting: int
    """A feature that fires on SPEAKS and not on SILENT; policy `alerting` reads it."""
    blocking: int
    """Another one; policy `blocking` reads it in responses, and in prompts in shadow."""
    parts: LoadedPair

    def readings(self, text: str) -> torch.Tensor:
        """`[tokens, features]` in units of the maxima, by a plain forward of this text alone."""
        return _readings(self.parts, text)


def small_scene(folder: Path, kind: str = "llama") -> Scene:
    """A random model of a family with a random dictionary."""
    pair = write_small_pair(folder, kind)
    known = maxima()
    statistics.save(pair.dictionary, FeatureStatistics(known, (known > 0).float() * 0.1, 1000))
    return scene(folder, pair.model, pair.dictionary)


def demo_scene(folder: Path) -> Scene | None:
    """The bundled pair; None while its dictionary is not there."""
    if not (tiny.dictionary_path() / statistics.FILE).is_file():
        return None
    return scene(folder, tiny.model_path(), tiny.dictionary_path())


def scene(folder: Path, model: Path, dictionary: Path) -> Scene:
    parts = load_pair(model, dictionary, device="cpu")
    loud = _readings(parts, SPEAKS)[1:].amax(0)
    quiet = _readings(parts, SILENT)[1:].amax(0)
    alerting, blocking = (loud * (quiet == 0)).topk(2).indices.tolist()
    policies = folder / "policies"
    policies.mkdir(parents=True)
    threshold = float(loud[[alerting, blocking]].min()) / 2
    _write(policies, "alerting", alerting, [{"name": "word", "threshold": threshold}])
    shadow = {
        "name": "asked",
        "phases": ["prompt"],
        "threshold": threshold,
        "mode": "shadow",
        "action": "block",
    }
    answer = {"name": "said", "phases": ["response"], "threshold": threshold, "action": "block"}
    _write(policies, "blocking", blocking, [shadow, answer])
    flags = {
        "model": str(model),
        "dictionary": dictionary,
        "policies": policies,
        "device": "cpu",
        "listen": "127.0.0.1:0",
        "metrics_listen": "127.0.0.1:0",
    }
    return Scene(flags, alerting, blocking, parts)


def _readings(parts: LoadedPair, text: str) -> torch.Tensor:
    ids = parts.loaded.tokenizer(text)["input_ids"]
    activations = parts.dictionary.autoencoder.encode(
        Harvester(parts.loaded, parts.layer).residuals(torch.tensor([ids]))
    )
    assert parts.dictionary.statistics is not None
    maximum = parts.dictionary.statistics.maximum
    return torch.where(maximum > 0, activations[0] / maximum, 0.0)


def _write(folder: Path, name: str, feature: int, rules: list[dict[str, Any]]) -> None:
    policy = {
        "apiVersion": "monitor/v1",
        "metadata": {
            "name": name,
            "title": name,
            "category": name,
            "severity": "high",
            "description": f"Reads feature {feature}.",
        },
        "features": [{"index": feature}],
        "rules": rules,
    }
    (folder / f"{name}.yaml").write_text(json.dumps(policy, indent=2))
