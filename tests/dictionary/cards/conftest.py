from __future__ import annotations

import math

import pytest
import torch

from monitor.dictionary.cards.description import DescribeOptions, describe
from monitor.dictionary.cards.detokenizer import Detokenizer
from monitor.dictionary.cards.feature_cards import make_cards
from monitor.dictionary.cards.logit_lens import Unembedding
from tests.dictionary.cards.made_cards import spelt
from tests.dictionary.small_dictionary import (
    BOS,
    VOCABULARY,
    WIDTH,
    residuals_of,
    small_autoencoder,
    small_rows,
)


@pytest.fixture
def made():
    found = describe(small_rows(30, 16), residuals_of, small_autoencoder(), DescribeOptions(math.inf, keep=3))
    head = torch.randn(VOCABULARY, WIDTH, generator=torch.Generator().manual_seed(2))
    unembedding = Unembedding(norm=lambda x: x, head=lambda x: x @ head.T)
    return found, list(make_cards(found, small_autoencoder(), unembedding, Detokenizer(spelt), start=(BOS,)))
