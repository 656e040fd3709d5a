from __future__ import annotations

import torch

from monitor.dictionary.cards.logit_lens import Unembedding
from tests.dictionary.small_dictionary import VOCABULARY, WIDTH, small_autoencoder


def test_what_norm_and_head_add_to_nothing_is_taken_off():
    bias = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(4))
    head = torch.randn(VOCABULARY, WIDTH, generator=torch.Generator().manual_seed(2))
    plain = Unembedding(norm=lambda x: x, head=lambda x: x @ head.T)
    biased = Unembedding(norm=lambda x: x + 3.0, head=lambda x: x @ head.T + bias)
    rows = small_autoencoder().decoder
    assert torch.allclose(plain.logits(rows), biased.logits(rows), atol=1e-5)
