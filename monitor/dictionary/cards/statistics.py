"""How strongly and how often each feature of a dictionary fires, measured once over a corpus.

Knows the numbers per feature and their file. Does not know how they were counted (`describe`), nor what a
feature means (`cards`). A feature never seen active has maximum 0: it has no unit, so policies and clamps
refuse it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from monitor.errors import DictionaryError

FILE = "statistics.safetensors"
_FORMAT = "sae-monitor.statistics.v1"


@dataclass(frozen=True)
class FeatureStatistics:
    """Per-feature numbers over the tokens of a corpus, BOS positions left out."""

    maximum: Tensor
    """`[features]` float32: the highest activation seen; the unit of every reading. 0: never active."""
    density: Tensor
    """`[features]` float32: share of tokens on which the feature was active."""
    tokens: int
    """How many tokens were counted."""
    corpus: str = ""
    """What was read, in words."""
    dictionary_digest: str = ""
    """The dictionary that was measured; empty where it was not recorded."""

    def __post_init__(self) -> None:
        """Refuse what cannot be statistics: other shapes, negative or non-finite numbers, no tokens."""
        if self.maximum.dim() != 1 or self.maximum.shape != self.density.shape:
            raise DictionaryError(
                f"statistics need one maximum and one density per feature; found shapes "
                f"{tuple(self.maximum.shape)} and {tuple(self.density.shape)}"
            )
        for name, values in (("maximum", self.maximum), ("density", self.density)):
            if not bool(torch.isfinite(values).all()) or bool((values < 0).any()):
                raise DictionaryError(f"statistics: `{name}` holds negative or non-finite numbers")
        if bool((self.density > 1).any()) or self.tokens < 1:
            raise DictionaryError("statistics: densities are shares of at least one token, between 0 and 1")

    @property
    def features(self) -> int:
        """Number of features."""
        return self.maximum.shape[0]

    def alive(self, feature: int) -> bool:
        """True where the feature was ever seen active, so that readings of it have a unit."""
        return bool(self.maximum[feature] > 0)


def save(folder: Path, statistics: FeatureStatistics) -> Path:
    """Write the statistics beside a dictionary; returns the file's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    record = {
        "tokens": statistics.tokens,
        "corpus": statistics.corpus,
        "dictionary_digest": statistics.dictionary_digest,
    }
    tensors = {
        "maximum": statistics.maximum.detach().float().cpu().contiguous(),
        "density": statistics.density.detach().float().cpu().contiguous(),
    }
    save_file(tensors, path, metadata={"format": _FORMAT, "record": json.dumps(record)})
    return path


def load(folder: Path) -> FeatureStatistics | None:
    """Statistics of a dictionary folder; None where it has none, DictionaryError where they are wrong."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise DictionaryError(
                    f"{path.name} has format {metadata.get('format')!r}; this version reads {_FORMAT!r}: "
                    f"write it again with `sae-monitor dictionary describe`"
                )
            maximum, density = file.get_tensor("maximum"), file.get_tensor("density")
        record = json.loads(metadata["record"])
        return FeatureStatistics(
            maximum=maximum.float(),
            density=density.float(),
            tokens=int(record["tokens"]),
            corpus=str(record["corpus"]),
            dictionary_digest=str(record["dictionary_digest"]),
        )
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise DictionaryError(f"{path.name} is not a statistics file of sae-monitor: {error}") from error
