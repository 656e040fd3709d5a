"""The arithmetic of every kind of dictionary against the formulas in float64."""

import dataclasses

import pytest
import torch

from monitor.dictionary.sae import Activation, InputNorm
from monitor.errors import DictionaryError
from tests.dictionary.formats.saes import FEATURES, WIDTH, inputs, make


def reference(sae, x):
    """Activations as the formulas are written."""
    x = x.double()
    if sae.input_norm is InputNorm.LAYER_NORM:
        x = (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-5)
    elif sae.input_norm is InputNorm.CENTRED:
        x = x - x.mean(-1, keepdim=True)
    elif sae.input_norm is InputNorm.CONSTANT_NORM:
        x = x * WIDTH**0.5 / x.norm(dim=-1, keepdim=True)
    if sae.input_bias is not None:
        x = x - sae.input_bias.double()
    pre = x @ sae.encoder.double().T + sae.encoder_bias.double()
    if sae.activation is Activation.JUMPRELU:
        return pre * (pre > sae.threshold.double())
    if sae.activation is Activation.GATED:
        return pre.relu() * (x @ sae.gate_encoder.double().T + sae.gate_bias.double() > 0)
    if sae.activation is Activation.TOPK:
        kept = torch.zeros_like(pre)
        for row, (values, where) in enumerate(zip(*pre.topk(sae.k, dim=-1), strict=True)):
            kept[row, where] = values.clamp_min(0)
        return kept
    return pre.clamp_min(0)


@pytest.mark.parametrize("kind", list(Activation))
@pytest.mark.parametrize("norm", list(InputNorm))
@pytest.mark.parametrize("subtract", [True, False])
def test_encode_and_decode(kind, norm, subtract):
    sae, x = make(kind, subtract=subtract, norm=norm), inputs()
    expected = reference(sae, x)
    torch.testing.assert_close(sae.encode(x).double(), expected, atol=1e-4, rtol=1e-4)
    out = expected @ sae.decoder.double() + sae.decoder_bias.double()
    if norm is InputNorm.LAYER_NORM:
        out = out * (x.double().std(-1, keepdim=True) + 1e-5) + x.double().mean(-1, keepdim=True)
    elif norm is InputNorm.CENTRED:
        out = out + x.double().mean(-1, keepdim=True)
    elif norm is InputNorm.CONSTANT_NORM:
        out = out * x.double().norm(dim=-1, keepdim=True) / WIDTH**0.5
    torch.testing.assert_close(sae.reconstruct(x).double(), out, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("kind", [Activation.RELU, Activation.JUMPRELU, Activation.GATED])
@pytest.mark.parametrize("norm", list(InputNorm))
def test_a_selection_reads_the_same(kind, norm):
    sae, chosen = make(kind, norm=norm, subtract=True), torch.tensor([7, 0, 31])
    torch.testing.assert_close(sae.select(chosen).encode(inputs()), sae.encode(inputs())[:, chosen])


def test_topk_cannot_be_selected():
    sae = make(Activation.TOPK)
    assert not sae.separable
    with pytest.raises(DictionaryError, match="cannot be selected"):
        sae.select(torch.tensor([1]))


@pytest.mark.parametrize("kind", list(Activation))
def test_batch_dimensions_do_not_matter(kind):
    sae, x = make(kind), inputs()
    folded = sae.encode(x.view(4, 16, WIDTH))
    torch.testing.assert_close(folded.view(64, FEATURES), sae.encode(x))


def test_precision_of_thresholds():
    sae = make(Activation.JUMPRELU)
    low, high = sae.to(dtype=torch.bfloat16), sae.to(dtype=torch.float64)
    assert (low.encoder.dtype, low.threshold.dtype) == (torch.bfloat16, torch.float32)
    assert low.encoder_bias.dtype is torch.float32
    assert high.threshold.dtype is torch.float64
    torch.testing.assert_close(high.encode(inputs().double()), reference(sae, inputs()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder_bias": torch.zeros(3)}, "encoder_bias has shape"),
        ({"decoder": torch.zeros(FEATURES, WIDTH + 1)}, "decoder has shape"),
        ({"threshold": None}, "needs `threshold`"),
        ({"k": FEATURES + 1}, "k is 41"),
        ({"activation": Activation.GATED}, "needs `gate_encoder`"),
        ({"activation": Activation.TOPK}, "needs `k`"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, message):
    with pytest.raises(DictionaryError, match=message):
        dataclasses.replace(make(Activation.JUMPRELU), **change)
