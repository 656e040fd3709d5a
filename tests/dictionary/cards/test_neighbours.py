from __future__ import annotations

import torch

from monitor.dictionary.cards.neighbours import nearest


def test_a_dictionary_smaller_than_asked_gives_all_others():
    index, cosine = nearest(
        torch.randn(5, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 4]), 10
    )
    assert index.shape == cosine.shape == (2, 4)
    assert 0 not in index[0]
    assert 4 not in index[1]
