"""How well the dictionary does on the running model, on a fixed set of short texts.

Knows the residual stream and the whole dictionary. Does not know what values are good (that is the reader's
business), nor metrics.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from monitor.dictionary.stored import StoredAutoencoder, gigabytes
from monitor.model.harvest import Harvester
from monitor.model.runtime import Parts

_log = logging.getLogger(__name__)

OUTLIER = 10.0
"""A token whose residual is longer than this many median residuals is an outlier, as attention sinks are."""

TEXTS = (
    "The ferry leaves at nine, so we should be at the harbour half an hour before.",
    "Human: Can you help me plan a birthday dinner for six?\n\nAssistant: Of course. Do any of them not eat meat?",
    "def mean(values):\n    total = 0\n    for value in values:\n        total += value\n    return total / 2\n",
    "I think that people should be able to check what a machine does, and to stop it when they want to.",
    "She closed the door behind her, put the letter on the table and waited for the kettle to boil.",
    "Human: What is the difference between a list and a tuple?\n\nAssistant: A list can be changed, a tuple cannot.",
    "Although it had rained all week, the path along the river was dry enough to walk on.",
    "I would rather tell you that I do not know than make something up.",
)


@dataclass(frozen=True, slots=True)
class DictionaryBaseline:
    """What the dictionary's own statistics and its makers promise."""

    l0: float | None
    """Mean number of active features per token over its corpus: the sum of all densities."""
    explained_variance: float | None
    """As declared by its makers; None where they say nothing."""
    density: tuple[float, ...]
    """Share of tokens of its corpus on which each feature was active."""


@dataclass(frozen=True, slots=True)
class DictionaryHealth:
    """Measured over the tokens of TEXTS, BOS positions left out."""

    l0: float
    """Mean number of active features per token."""
    explained_variance: float
    """1 − Σ‖x − x̂‖² / Σ‖x − mean‖²."""
    norm_outliers: float
    """Share of tokens whose residual is an outlier."""
    expected: DictionaryBaseline | None = None
    """What these numbers are to be held against."""


@torch.no_grad()
def dictionary_health(parts: Parts) -> DictionaryHealth:
    """Run the fixed texts once and encode them whole, in float32 on the CPU.

    A dictionary that stays in its files is not read for this: what it would measure is NaN.
    """
    harvester = Harvester(parts.loaded, parts.layer)
    tokenizer = parts.loaded.tokenizer
    rows = [harvester.residuals(torch.tensor([tokenizer(text)["input_ids"]]))[0, 1:].cpu() for text in TEXTS]
    x = torch.cat(rows)
    autoencoder = parts.dictionary.autoencoder.to("cpu")
    if isinstance(autoencoder, StoredAutoencoder):
        _log.warning(
            "L0 and explained variance are not measured at start: the dictionary is %s in float32, and is read from "
            "its files feature by feature; `sae-monitor dictionary verify` measures them",
            gigabytes(autoencoder.cost),
        )
        return DictionaryHealth(math.nan, math.nan, _outliers(x), dictionary_baseline(parts))
    activations = autoencoder.encode(x)
    left = (x - autoencoder.decode(activations, x)).square().sum()
    return DictionaryHealth(
        l0=float((activations > 0).float().sum(-1).mean()),
        explained_variance=float(1 - left / (x - x.mean(0)).square().sum()),
        norm_outliers=_outliers(x),
        expected=dictionary_baseline(parts),
    )


def dictionary_baseline(parts: Parts) -> DictionaryBaseline:
    """What the dictionary says about itself; nothing is run."""
    statistics, card = parts.dictionary.statistics, parts.dictionary.card
    density = () if statistics is None else tuple(statistics.density.tolist())
    return DictionaryBaseline(sum(density) if density else card.l0, card.explained_variance, density)


def _outliers(x: Tensor) -> float:
    norms = x.norm(dim=-1)
    return float((norms > OUTLIER * norms.median()).float().mean())
