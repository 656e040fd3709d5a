"""A random model and a random dictionary in folders, as users have them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tokenizers.processors import TemplateProcessing

from monitor.dictionary.formats import DictionaryCard, save_saelens
from monitor.dictionary.sae import SparseAutoencoder
from monitor.model.load.model import LoadedModel
from monitor.model.offline.residuals import Harvester
from tests.model.families import family_model
from tests.model.tiny import CONFIGS, dictionary, loaded_model

LAYER, FEATURES = 2, 96
THINGS = ("power", "a cat", "rain", "money", "it")
WORDS = tuple(f"{verb} {thing}" for verb in ("want", "keep", "see") for thing in THINGS)


@dataclass(frozen=True)
class SmallPair:
    model: Path
    dictionary: Path
    corpus: Path

    @property
    def options(self) -> list[str]:
        return ["--model", str(self.model), "--dictionary", str(self.dictionary)]

    @property
    def dictionary_option(self) -> list[str]:
        return ["--dictionary", str(self.dictionary)]


def write_small_pair(folder: Path, kind: str = "llama") -> SmallPair:
    """Model, dictionary and a corpus of 200 short lines under `folder`; nothing described yet."""
    pair = SmallPair(folder / "model", folder / "dictionary", folder / "corpus.txt")
    loaded = loaded_model(kind) if kind in CONFIGS else family_model(kind)
    loaded.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    loaded.model.save_pretrained(pair.model)
    loaded.tokenizer.save_pretrained(pair.model)
    save_saelens(
        pair.dictionary, _writable(loaded), DictionaryCard(model_name="small", layer=LAYER, prepend_bos=True)
    )
    lines = (" ".join(WORDS[(3 * i + j * (1 + i % 5)) % len(WORDS)] for j in range(6)) for i in range(200))
    pair.corpus.write_text("\n".join(lines))
    return pair


def _writable(loaded: LoadedModel) -> SparseAutoencoder:
    """A random dictionary of the kind that the SAELens layout can express.

    What it reconstructs stays close to the model's mean residual, so that the self-test does not refuse it.
    """
    found = dictionary("jumprelu", FEATURES)
    ids = [loaded.text.ids(" ".join(WORDS[number:])) for number in range(6)]
    residuals = torch.cat([Harvester(loaded, LAYER).residuals(torch.tensor([row]))[0, 1:] for row in ids])
    return replace(found, input_bias=None, decoder=found.decoder * 0.02, decoder_bias=residuals.mean(0))
