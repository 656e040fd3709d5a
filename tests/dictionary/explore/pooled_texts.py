"""Made-up pooled texts."""

from __future__ import annotations

import torch

from monitor.dictionary.explore.text_pooling import PooledTexts


def made_pooled_texts(maximum, mean=None):
    maximum = torch.tensor(maximum)
    return PooledTexts(
        maximum=maximum,
        mean=maximum / 10 if mean is None else torch.tensor(mean),
        peak=(maximum > 0).int() * 4,
        residual=torch.zeros(len(maximum), 2),
        tokens=torch.full((len(maximum),), 10),
    )
