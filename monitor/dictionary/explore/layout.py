"""The neighbourhood of a feature, laid out in two dimensions.

Knows which features are near and how a projection keeps nearness. Does not know labels or pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from monitor.dictionary.cards.neighbours import nearest


@dataclass(frozen=True)
class Neighbourhood:
    """A feature and its nearest others."""

    features: tuple[int, ...]
    """The feature itself first, then the others, nearest first."""
    cosines: NDArray[np.float64]
    """`[n]` decoder cosine of each with the first; 1 for itself."""
    places: NDArray[np.float64]
    """`[n, 2]` coordinates in the plane, without a unit."""


def neighbourhood(decoder: Tensor, feature: int, size: int) -> Neighbourhood:
    """The `size` nearest features of one, placed by t-SNE on cosine distance (van der Maaten & Hinton, 2008).

    Deterministic for one machine: initialised by principal components, with a fixed seed.
    """
    from sklearn.manifold import TSNE

    others, cosines = nearest(decoder, torch.tensor([feature], device=decoder.device), size)
    features = [feature, *others[0].tolist()]
    unit = normalize(decoder[features].float(), dim=-1).double().cpu().numpy()
    # On unit vectors squared Euclidean distance is 2 − 2·cosine, so the order of distances is that of cosines.
    projector = TSNE(
        n_components=2,
        perplexity=min(15.0, (len(features) - 1) / 3),
        init="pca",
        random_state=0,
        learning_rate="auto",
    )
    places = np.asarray(projector.fit_transform(unit), np.float64)
    return Neighbourhood(tuple(features), np.r_[1.0, cosines[0].double().cpu().numpy()], places)
