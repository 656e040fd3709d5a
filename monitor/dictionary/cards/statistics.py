"""Feature statistics and their file, `statistics.safetensors`: how strongly and how often features fire on a corpus.

The recorded maximum is the unit of a feature's readings. A feature that was never active has maximum 0 and so no unit;
policies and clamps refuse it.
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
    """Maximum and density of every feature over the tokens of a corpus, without attention sinks."""

    maximum: Tensor
    """`[features]` float32: the highest activation; 0 where the feature was never active."""
    density: Tensor
    """`[features]` float32: share of tokens at which the feature was active."""
    tokens: int
    """Number of tokens that were counted."""
    corpus: str = ""
    """Description of the corpus, in words."""
    dictionary_digest: str = ""
    """Digest of the dictionary that was measured; empty where it was not recorded."""
    norm_limit: float | None = None
    """Norm above which a residual counted as an attention sink's and was left out; None where it was not recorded."""

    def __post_init__(self) -> None:
        """Raise DictionaryError for contradicting shapes, negative or non-finite numbers, or no tokens."""
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
        if self.norm_limit is not None and not self.norm_limit > 0:
            raise DictionaryError(f"statistics: the norm limit is {self.norm_limit}; it must be above 0")

    @property
    def features(self) -> int:
        """Number of features."""
        return self.maximum.shape[0]

    def alive(self, feature: int) -> bool:
        """True where the feature was active at some token, so that its readings have a unit."""
        return bool(self.maximum[feature] > 0)


def save(folder: Path, statistics: FeatureStatistics) -> Path:
    """Write the statistics to a dictionary's folder. Returns the file's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    record = {
        "tokens": statistics.tokens,
        "corpus": statistics.corpus,
        "dictionary_digest": statistics.dictionary_digest,
        "norm_limit": statistics.norm_limit,
    }
    tensors = {
        "maximum": statistics.maximum.detach().float().cpu().contiguous(),
        "density": statistics.density.detach().float().cpu().contiguous(),
    }
    save_file(tensors, path, metadata={"format": _FORMAT, "record": json.dumps(record)})
    return path


def load(folder: Path) -> FeatureStatistics | None:
    """The statistics in a dictionary's folder; None where it has none. DictionaryError where the file is broken."""
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
            norm_limit=None if record.get("norm_limit") is None else float(record["norm_limit"]),
        )
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise DictionaryError(f"{path.name} is not a statistics file of sae-monitor: {error}") from error
