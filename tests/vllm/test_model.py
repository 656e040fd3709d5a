"""A model without weights still says what the engine needs to know of it."""

from dataclasses import replace

import pytest
import torch

from monitor.errors import ModelError
from monitor.model.engine.chunks import longest_prompt
from monitor.model.engine.paged import Limits
from monitor.model.load.hook_points import MLP_OUT, Place
from monitor.model.runtime import LoadedPair
from monitor.vllm.model import cache_bytes, without_weights
from tests.model.tiny import CONTEXT, VOCABULARY, loaded_model


def pair():
    return LoadedPair(loaded_model(), None, Place(2))


def test_weights_are_gone_and_facts_stay():
    given = pair()
    found = without_weights(given).loaded
    assert all(parameter.is_meta for parameter in found.model.parameters())
    assert found.context == CONTEXT - 1
    assert found.rows == VOCABULARY
    assert found.digest == given.loaded.digest
    assert found.device_of(found.layers[2]) == torch.device("cpu")
    assert longest_prompt(found) == CONTEXT - 1
    assert found.site(Place(2)) is not None
    found.check_ids([1, 2])


def test_other_places_than_the_residual_stream_are_refused():
    with pytest.raises(ModelError, match="built-in engine"):
        without_weights(replace(pair(), place=Place(2, MLP_OUT)))


def test_ranks_share_the_heads_and_so_what_is_kept_of_a_token():
    loaded, limits = loaded_model(), Limits(running=2, cache_tokens=256)
    alone = cache_bytes(loaded, limits)
    assert cache_bytes(loaded, limits, 2) == alone // 2
    assert cache_bytes(loaded, limits, 4) == alone // 2, "each rank has a whole head: the model has two"
