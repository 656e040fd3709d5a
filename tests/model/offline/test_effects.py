"""Effects of features on the next token, and edits that are compared: against plain float64."""

import pytest
import torch

from monitor.model.offline.edits import Clamped, Subtracted, ablated
from monitor.model.offline.effects import Prompted
from monitor.model.offline.residuals import Harvester
from monitor.model.offline.steered_model import SteeredModel, padded, unchanged
from monitor.records import Clamp, ErrorTerm, Where
from tests.model.running import LAYER
from tests.model.tap.test_error_term import edited
from tests.model.tiny import (
    KINDS,
    WIDTH,
    decode_all,
    dictionary,
    encode_all,
    loaded_model,
    maxima,
    plain_clamp,
    plain_clamped,
    prompt,
)

IDS = prompt(5)
CLAMPS = (Clamp(3, -1.0), Clamp(40, -2.0, Where.EVERYWHERE), Clamp(41, 0.5))


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


class TestEffects:
    @pytest.mark.parametrize("kind", ["jumprelu", "topk", "layer_norm"])
    def test_ablation_is_what_the_feature_adds(self, kind) -> None:
        found, exact, sae = prompted(kind), loaded_model(dtype=torch.float64), dictionary(kind)
        feature = active_feature(found)
        zero = (Clamp(feature, 0.0),)
        change = logits_with(exact, lambda x: x) - logits_with(
            exact, lambda x: plain_clamped(sae, x, zero, maxima())
        )
        wanted = (change - change.mean()).float()
        torch.testing.assert_close(found.effect(feature).ablation, wanted, rtol=1e-3, atol=1e-4)

    @pytest.mark.parametrize("kind", ["jumprelu", "topk", "layer_norm"])
    def test_attribution_is_the_slope_of_that(self, kind) -> None:
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

    def test_direct_is_the_slope_through_norm_and_head_alone(self) -> None:
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

    def test_a_feature_that_is_off_does_nothing(self) -> None:
        found = prompted()
        off = int((found.activations.sum(0) == 0).nonzero()[0])
        effect = found.effect(off)
        assert float(effect.ablation.abs().max()) == 0
        assert float(found.attribution(3)[:, off].abs().max()) == 0


class TestEdits:
    x = torch.randn(2, 6, WIDTH, generator=torch.Generator().manual_seed(3))

    @pytest.mark.parametrize("kind", KINDS)
    def test_clamps_are_those_that_are_served(self, kind) -> None:
        sae, unit = dictionary(kind), maxima()
        found = Clamped(sae, unit, CLAMPS, torch.device("cpu"))(self.x, 4)
        torch.testing.assert_close(
            found, plain_clamp(sae, self.x, CLAMPS, unit).float(), rtol=1e-4, atol=1e-4
        )

    def test_without_error_term_from_the_second_position_on(self) -> None:
        sae, unit = dictionary(), maxima()
        drops = tuple(Clamp(c.feature, c.target, Where.EVERYWHERE, ErrorTerm.DROP) for c in CLAMPS)
        found = Clamped(sae, unit, drops, torch.device("cpu"))(self.x, 0)
        dropped = decode_all(sae, edited(sae, self.x, drops, unit), self.x).float()
        torch.testing.assert_close(found[:, 1:], dropped[:, 1:], rtol=1e-4, atol=1e-4)
        assert torch.equal(found[:, 0], self.x[:, 0])

    def test_a_direction_is_subtracted_from_all_but_the_first(self) -> None:
        direction = torch.ones(WIDTH)
        found = Subtracted(direction, 2.0)(self.x, 0)
        assert torch.equal(found[:, 0], self.x[:, 0])
        assert torch.equal(found[:, 1:], self.x[:, 1:] - 2)
        assert torch.equal(Subtracted(direction, 2.0)(self.x, 5), self.x - 2)

    def test_ablation_is_a_target_of_zero(self) -> None:
        sae, unit = dictionary(), maxima()
        found = ablated(sae, unit, [3, 41], torch.device("cpu"))(self.x, 0)
        zero = (Clamp(3, 0.0), Clamp(41, 0.0))
        torch.testing.assert_close(
            found, plain_clamped(sae, self.x, zero, unit).float(), rtol=1e-4, atol=1e-4
        )


class TestSteered:
    def test_writing_with_a_cache_is_reading_without_one(self) -> None:
        loaded = loaded_model()
        harvester = Harvester(loaded, LAYER)
        edit = Clamped(dictionary(), maxima(), CLAMPS, torch.device("cpu"))
        heads = torch.tensor([prompt(n)[:1] + tuple(range(10 + n, 15 + n)) for n in range(3)])
        steered = SteeredModel(harvester, 3)
        written = steered.write(heads, edit, torch.zeros(3, 5), 0.0)
        text = torch.cat([heads, written], 1)
        ran = steered.read(text, edit)
        assert torch.equal(ran.logits.argmax(-1)[:, 5:-1], written)
        assert ran.later is not None
        assert not torch.equal(ran.edited, steered.read(text, unchanged).edited)
        assert not loaded.layers[LAYER]._forward_hooks

    def test_the_same_luck_gives_the_same_text_and_temperature_matters(self) -> None:
        steered = SteeredModel(Harvester(loaded_model(), LAYER))
        heads = torch.tensor([[0, 20, 30]] * 64)
        luck = torch.rand(64, 4, generator=torch.Generator().manual_seed(1))
        first, again = (steered.write(heads, unchanged, luck, 1.0) for _ in range(2))
        assert torch.equal(first, again)
        assert len({tuple(row) for row in first.tolist()}) > 1
        wanted = steered.read(heads[:1], unchanged).logits[0, -1].softmax(-1)
        many = torch.rand(4000, 1, generator=torch.Generator().manual_seed(2))
        drawn = steered.write(heads[:1].expand(4000, -1), unchanged, many, 1.0)[:, 0]
        share = torch.bincount(drawn, minlength=len(wanted)) / 4000
        assert (share - wanted).abs().max() < 0.03

    def test_padding(self) -> None:
        ids, real = padded([[1, 2, 3], [4]])
        assert ids.tolist() == [[1, 2, 3], [4, 0, 0]]
        assert real.tolist() == [[True, True, True], [True, False, False]]
