"""Attention of a pass against softmax(q·k)·v of each request by itself, in float64."""

import math
from types import SimpleNamespace

import pytest
import torch

from monitor.model.engine.attention import each_apart

HEADS, SHARED, WIDTH = 4, 2, 8
QUERIES, KEYS = (1, 3, 2), (5, 3, 6)
"""Tokens of each request in the pass, and with its past."""


def edges(lengths):
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()])


def function(name="sdpa"):
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    return ALL_ATTENTION_FUNCTIONS[each_apart(name)]


class Pass:
    """A pass of several requests; a token sees its own request up to itself."""

    def __init__(self, seed=0):
        made = torch.Generator().manual_seed(seed)
        self.query = torch.randn(1, HEADS, sum(QUERIES), WIDTH, generator=made)
        self.key = torch.randn(1, SHARED, sum(KEYS), WIDTH, generator=made)
        self.value = torch.randn(1, SHARED, sum(KEYS), WIDTH, generator=made)
        self.mask = torch.full((1, 1, sum(QUERIES), sum(KEYS)), -math.inf)
        self.rows = []
        first = begin = 0
        for new, whole in zip(QUERIES, KEYS, strict=True):
            self.rows.append((slice(first, first + new), slice(begin, begin + whole)))
            for row in range(new):
                self.mask[..., first + row, begin : begin + whole - new + row + 1] = 0.0
            first, begin = first + new, begin + whole

    def update(self, **_):
        """As the paged cache: gives keys and values of all, the past included."""
        return self.key, self.value

    def run(self, mask="own"):
        module = SimpleNamespace(
            layer_idx=0, num_key_value_groups=HEADS // SHARED, training=False, is_causal=False
        )
        given = self.mask if mask == "own" else mask
        out, weights = function()(
            module,
            self.query,
            self.key,
            self.value,
            given,
            cache=self,
            cu_seq_lens_q=edges(QUERIES),
            cu_seq_lens_k=edges(KEYS),
            scaling=WIDTH**-0.5,
            dropout=0.0,
        )
        assert weights is None
        return out

    def plain(self):
        keys, values = (
            tensor.double().repeat_interleave(HEADS // SHARED, dim=1) for tensor in (self.key, self.value)
        )
        scores = self.query.double() @ keys.transpose(2, 3) * WIDTH**-0.5 + self.mask.double()
        return (scores.softmax(-1) @ values).transpose(1, 2)


@pytest.mark.parametrize("seed", range(3))
def test_every_request_attends_to_its_own(seed):
    one = Pass(seed)
    found = one.run()
    assert found.shape == (1, sum(QUERIES), HEADS, WIDTH)
    torch.testing.assert_close(found.double(), one.plain(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bad", range(len(QUERIES)))
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_what_is_no_number_in_one_request_reaches_no_other(bad, number):
    good, broken = Pass(), Pass()
    queries, keys = broken.rows[bad]
    broken.key[:, :, keys.start] = number
    broken.value[:, :, keys.start] = number
    found, wanted = broken.run(), good.run()
    others = [row for row in range(sum(QUERIES)) if not queries.start <= row < queries.stop]
    assert torch.equal(found[:, others], wanted[:, others])
    assert not found[:, queries].isfinite().all()


def test_without_a_mask_it_would_attend_to_everything():
    with pytest.raises(ValueError, match="needs a mask"):
        Pass().run(mask=None)


def test_implementations_that_keep_requests_apart_keep_their_name():
    assert each_apart("flash_attention_2") == "flash_attention_2"
    assert each_apart("sdpa") == each_apart("sdpa") != "sdpa"
