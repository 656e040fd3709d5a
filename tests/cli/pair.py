"""A tiny model, a dictionary with two features that mean something, and policies that read them, on disk.

The model is random and its tokens are bytes. Feature 5 fires on `!`, feature 9 on `?`: their encoder rows point from
the mean residual of other bytes to the mean residual of theirs.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from monitor.dictionary.cards import statistics
from monitor.dictionary.cards.statistics import FeatureStatistics
from monitor.dictionary.formats.card import DictionaryCard
from monitor.dictionary.formats.saelens_writer import save_saelens
from monitor.dictionary.sae import Activation, SparseAutoencoder
from monitor.model.offline.residuals import Harvester
from tests.model.tiny import WIDTH, loaded_model

LAYER = 1
FEATURES = 16
MEANING = {5: "!", 9: "?"}
POLICY = """\
apiVersion: monitor/v1
metadata:
  name: {name}
  title: Test
  category: {category}
  severity: high
  description: Fires on one character.
features:
  - index: {feature}
rules:
  - name: says-it
    threshold: 0.5
    action: {action}
  - name: would-suppress
    threshold: 2
    action: suppress
    mode: shadow
suppress:
  features: [{feature}]
  target: -5
  where: everywhere
"""


@dataclass(frozen=True)
class Pair:
    """Folders that `serve`, `score` and `generate` take."""

    model: Path
    dictionary: Path
    policies: Path

    @property
    def flags(self) -> list[str]:
        """As on a command line."""
        return [
            "--model",
            str(self.model),
            "--dictionary",
            str(self.dictionary),
            "--policies",
            str(self.policies),
        ]


def make_pair(folder: Path) -> Pair:
    """Write everything below `folder`."""
    loaded = loaded_model()
    pair = Pair(folder / "model", folder / "dictionary", folder / "policies")
    loaded.model.save_pretrained(pair.model)
    loaded.tokenizer.save_pretrained(pair.model)
    harvester = Harvester(loaded, LAYER)
    sae, maximum = _dictionary(loaded.tokenizer, harvester)
    save_saelens(
        pair.dictionary,
        sae,
        DictionaryCard(model_name="tiny", hook_name=f"blocks.{LAYER}.hook_resid_post", layer=LAYER),
    )
    statistics.save(pair.dictionary, FeatureStatistics(maximum, (maximum > 0).float() * 0.01, tokens=1000))
    pair.policies.mkdir()
    for name, category, feature, action in (
        ("power-seeking", "power_seeking", 5, "alert"),
        ("deception", "deception", 9, "block"),
    ):
        text = POLICY.format(name=name, category=category, feature=feature, action=action)
        (pair.policies / f"{name}.yaml").write_text(text)
    return pair


def _dictionary(tokenizer: object, harvester: Harvester) -> tuple[SparseAutoencoder, Tensor]:
    """The dictionary, and as maxima what its features usually read over made-up sentences."""
    ids, residuals = _sample(tokenizer, harvester)
    encoder, decoder = torch.zeros(FEATURES, WIDTH), torch.zeros(FEATURES, WIDTH)
    bias, maximum = torch.full((FEATURES,), -1.0), torch.zeros(FEATURES)
    for feature, character in MEANING.items():
        mine = (ids == tokenizer(character, add_special_tokens=False)["input_ids"][0]).float()
        weights = torch.linalg.lstsq(
            torch.cat([residuals, torch.ones(len(ids), 1)], 1), mine[:, None]
        ).solution[:, 0]
        encoder[feature], bias[feature] = weights[:-1], weights[-1] - 0.5
        decoder[feature] = weights[:-1] / weights[:-1].square().sum()
        readings = (residuals @ encoder[feature] + bias[feature])[mine > 0]
        maximum[feature] = readings.median()
    sae = SparseAutoencoder(
        activation=Activation.RELU,
        encoder=encoder,
        encoder_bias=bias,
        decoder=decoder,
        decoder_bias=torch.zeros(WIDTH),
    )
    return sae, maximum


def _sample(tokenizer: object, harvester: Harvester) -> tuple[Tensor, Tensor]:
    """Token ids `[tokens]` and residuals `[tokens, d_model]` of random sentences, first positions left out."""
    make = torch.Generator().manual_seed(4)
    letters = string.ascii_letters + string.digits + " .,\n" + "!?" * 8
    rows = []
    for _ in range(64):
        picks = torch.randint(len(letters), (60,), generator=make).tolist()
        rows.append(tokenizer("".join(letters[i] for i in picks), add_special_tokens=False)["input_ids"])
    ids = torch.tensor([[0, *row] for row in rows])
    return ids[:, 1:].flatten(), harvester.residuals(ids)[:, 1:].flatten(0, 1)
