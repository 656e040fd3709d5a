"""Hook points of MLP and attention give what the layer adds to the residual stream, whatever it multiplies first."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from monitor.errors import ModelError
from monitor.model.load.hook_points import ATTN_OUT, MLP_OUT, Place, hidden_of, replace_hidden
from monitor.model.load.model import LoadedModel
from monitor.model.offline.residuals import Harvester
from tests.model.families import family_model
from tests.model.tiny import loaded_model, prompt

IDS = torch.tensor([prompt(3)])
MULTIPLIED = {
    ("granite", ATTN_OUT): 0.22,
    ("granite", MLP_OUT): 0.22,
    ("minimax", ATTN_OUT): 0.7,
    ("minimax", MLP_OUT): 0.7,
}


@pytest.mark.parametrize(("kind", "point"), MULTIPLIED)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_factor_is_found(kind: str, point: str, dtype: torch.dtype) -> None:
    loaded = family_model(kind, dtype)
    assert [loaded.site(Place(layer, point)).factor for layer in (1, 2)] == [MULTIPLIED[kind, point]] * 2


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox", "gemma2", "phi3", "olmo2", "mixtral"])
@pytest.mark.parametrize("point", [ATTN_OUT, MLP_OUT])
def test_where_nothing_is_multiplied_it_is_one(kind: str, point: str) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        assert loaded_model(kind, dtype=dtype).site(Place(2, point)).factor == 1.0


@pytest.mark.parametrize("kind", ["opt", "falcon", "cohere", "phi"])
def test_layers_without_an_mlp_or_with_both_side_by_side(kind: str) -> None:
    assert family_model(kind).site(Place(2, ATTN_OUT)).factor == 1.0


@pytest.mark.parametrize("point", [ATTN_OUT, MLP_OUT])
def test_the_reading_is_what_the_layer_adds(point: str) -> None:
    """Before + attention + MLP = after; and a change at the hook point goes into the residual as it is."""
    loaded = family_model("granite", torch.float64)
    places = (Place(0), Place(1, ATTN_OUT), Place(1, MLP_OUT), Place(1))
    before, attention, mlp, after = (_read(loaded, place) for place in places)
    torch.testing.assert_close(before + attention + mlp, after)
    change = torch.randn(after.shape[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    if point == MLP_OUT:
        moved = _after(loaded, Place(1, point), lambda x: x + change)
        torch.testing.assert_close(moved - after, change[None].expand_as(after))


@pytest.mark.parametrize(("kind", "point"), MULTIPLIED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_a_hook_leaves_alone_stays_as_it_is_to_the_bit(
    kind: str, point: str, dtype: torch.dtype
) -> None:
    loaded = family_model(kind, dtype)
    plain = loaded.model(IDS, use_cache=False).logits
    harvester = Harvester(loaded, Place(1, point))
    assert torch.equal(harvester.logits(IDS, lambda x: x), plain)
    assert torch.equal(harvester.logits(IDS, lambda x: x.clone()), plain)
    assert not torch.equal(harvester.logits(IDS, torch.zeros_like), plain)


@pytest.mark.parametrize(("kind", "point"), MULTIPLIED)
def test_the_name_of_the_module_itself_means_its_own_output(kind: str, point: str) -> None:
    loaded, name = family_model(kind), "mlp" if point == MLP_OUT else "self_attn"
    raw = _read(loaded, Place(1, name))
    torch.testing.assert_close(_read(loaded, Place(1, point)), raw * MULTIPLIED[kind, point])


class Bent(nn.Module):
    """A layer that adds the square of its MLP's output."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.mlp, self.inside = layer.mlp, layer

    def forward(self, *args: Any, **named: Any) -> Any:
        out = self.inside(*args, **named)
        hidden = hidden_of(out)
        return replace_hidden(out, hidden + self.mlp(hidden).square())


def test_a_layer_that_does_something_else_is_refused() -> None:
    loaded = loaded_model()
    loaded.layers[2] = Bent(loaded.layers[2])
    with pytest.raises(ModelError, match="does not add a multiple of it"):
        loaded.site(Place(2, MLP_OUT))


def _read(loaded: LoadedModel, place: Place) -> Tensor:
    seen: list[Tensor] = []
    handle = loaded.site(place).register_forward_hook(lambda _m, _a, out: seen.append(hidden_of(out)))
    loaded.model(IDS, use_cache=False)
    handle.remove()
    return seen[0]


def _after(loaded: LoadedModel, place: Place, edit: Any) -> Tensor:
    """The residual after the place's layer, with an edit at the place."""

    def hook(_module: object, _args: object, output: Any) -> Any:
        return replace_hidden(output, edit(hidden_of(output)))

    handle = loaded.site(place).register_forward_hook(hook)
    try:
        return _read(loaded, Place(place.layer))
    finally:
        handle.remove()
