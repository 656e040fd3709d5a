"""Maxima, densities and peaks of a small corpus, in plain loops."""

from __future__ import annotations

import torch

from tests.dictionary.small_dictionary import FEATURES, residuals_of, small_autoencoder


def plain(rows):
    """The same in plain loops and float64: per feature maximum, share of active tokens, best place per document."""
    autoencoder = small_autoencoder().to(dtype=torch.float64)
    best: list[dict[int, tuple[float, int, int]]] = [{} for _ in range(FEATURES)]
    active, tokens = torch.zeros(FEATURES), 0
    for number, row in enumerate(rows):
        activations = autoencoder.encode(residuals_of(row.ids[None])[0].double())
        for at, document in enumerate(row.documents.tolist()):
            if at == 0 or row.documents[at] != row.documents[at - 1]:
                continue
            tokens += 1
            for feature in range(FEATURES):
                value = float(activations[at, feature])
                active[feature] += value > 0
                if value > best[feature].get(document, (0.0,))[0]:
                    best[feature][document] = (value, number, at)
    return best, active / tokens, tokens
