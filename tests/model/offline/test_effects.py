"""Effects of features on the next token, against plain float64."""

import pytest
import torch

from monitor.model.offline.effects import Prompted
from monitor.model.offline.residuals import Harvester
from monitor.records import Clamp
from tests.model.running import LAYER
from tests.model.tiny import (
    decode_all,
    dictionary,
    encode_all,
    loaded_model,
    maxima,
    plain_clamped,
    prompt,
)

IDS = prompt(5)


def logits_with(exact, edit):
    """Logits of the last position with the residual replaced, in float64."""

    def hook(_module, _args, output):
        return edit(output)

    handle = exact.layers[LAYER].register_forward_hook(hook)
    try:
        with torch.no_grad():
            return exact.model(torch.tensor([IDS]), use_cache=False).logits[0, -1]
    finally:
        handle.remove()


def head(loaded):
    return lambda x: loaded.model.lm_head(loaded.model.model.norm(x))


def prompted(kind="jumprelu"):
    loaded = loaded_model()
    return Prompted(Harvester(loaded, LAYER), dictionary(kind), maxima(), IDS, head(loaded))


def active_feature(found):
    return int((found.activations[1:].sum(0)).argmax())


@pytest.mark.parametrize("kind", ["jumprelu", "topk", "layer_norm"])
def test_ablation_is_what_the_feature_adds(kind) -> None:
    found, exact, sae = prompted(kind), loaded_model(dtype=torch.float64), dictionary(kind)
    feature = active_feature(found)
    zero = (Clamp(feature, 0.0),)
    change = logits_with(exact, lambda x: x) - logits_with(
        exact, lambda x: plain_clamped(sae, x, zero, maxima())
    )
    wanted = (change - change.mean()).float()
    torch.testing.assert_close(found.effect(feature).ablation, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["jumprelu", "topk", "layer_norm"])
def test_attribution_is_the_slope_of_that(kind) -> None:
    found, exact, sae = prompted(kind), loaded_model(dtype=torch.float64), dictionary(kind)
    feature, token, small = active_feature(found), 7, 1e-4

    def shrunk(x):
        activations = encode_all(sae, x)
        less = activations.clone()
        less[:, 1:, feature] *= 1 - small
        return x + decode_all(sae, less, x) - decode_all(sae, activations, x)

    change = logits_with(exact, lambda x: x) - logits_with(exact, shrunk)
    wanted = float((change[token] - change.mean()) / small)
    assert float(found.attribution(token)[:, feature].sum()) == pytest.approx(wanted, rel=1e-2, abs=1e-4)


def test_direct_is_the_slope_through_norm_and_head_alone() -> None:
    found, exact, sae = prompted(), loaded_model(dtype=torch.float64), dictionary()
    feature = int(found.activations[-1].argmax())
    kept = {}
    handle = exact.layers[-1].register_forward_hook(lambda _m, _a, output: kept.update(x=output))
    logits_with(exact, lambda x: x)
    handle.remove()
    x, small = kept["x"][0, -1:], 1e-2  # norms compute in float32
    push = found.activations[-1, feature].double() * sae.decoder[feature].double() * small
    with torch.no_grad():
        change = (head(exact)(x + push) - head(exact)(x - push))[0] / (2 * small)
    wanted = (change - change.mean()).float()
    torch.testing.assert_close(found.effect(feature).direct, wanted, rtol=1e-2, atol=1e-3)


def test_a_feature_that_is_off_does_nothing() -> None:
    found = prompted()
    off = int((found.activations.sum(0) == 0).nonzero()[0])
    effect = found.effect(off)
    assert float(effect.ablation.abs().max()) == 0
    assert float(found.attribution(3)[:, off].abs().max()) == 0
