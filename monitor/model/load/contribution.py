"""What a layer does with the output of its MLP or attention: the factor with which it goes into the residual stream.

Most layers add it as it is. Granite, MiniMax and others multiply it first, outside of the module, each under a name of
its own. So the factor is measured: the output is moved a little, and the layer's own output must move by a multiple.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from monitor.errors import ModelError
from monitor.model.load.hook_points import MLP_OUT, Place, Site, hidden_of, replace_hidden, site_of

_TOKENS = 8
"""Length of the text that is read to measure."""
_EXACT = 1e-3
_ROUNDINGS = 16
"""By how many roundings of a number, or else by what share, the layer's output may miss a multiple."""


class _Readable(Protocol):
    """A model whose passes can be run and hooked into."""

    @property
    def model(self) -> Any: ...

    @property
    def layers(self) -> nn.ModuleList: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def passes(self) -> AbstractContextManager[Any]: ...


@dataclass
class _LayerPass:
    """Tensors of one pass over a layer."""

    output: Tensor = field(default_factory=lambda: torch.empty(0))
    """Of the layer."""
    contribution: Tensor = field(default_factory=lambda: torch.empty(0))
    """Of the module whose factor is wanted."""
    mlp: Any = None
    """What the module returned that must not react to an attention that is moved."""
    inputs: dict[nn.Module, Tensor] = field(default_factory=dict)
    """Of the layer's modules, in the order in which they ran: after the attention one of them gets the residual."""


class _LayerEnd(Exception):
    """Raised by a hook to end a pass behind the layer."""


def factor_of(loaded: _Readable, place: Place) -> float:
    """The factor with which the output at a hook point of MLP or attention is added to the residual stream.

    Raises ModelError where the layer does something else with it.
    """
    layer, site = loaded.layers[place.layer], site_of(loaded.layers, place)
    mlp = None if place.point == MLP_OUT else _mlp(loaded, place.layer)
    before = _pass(loaded, layer, site, mlp)
    move = torch.randn(before.contribution.shape, generator=torch.Generator().manual_seed(0))
    scale = before.output.float().square().mean().sqrt()
    move = (move * scale.cpu()).to(before.contribution)
    after = _pass(loaded, layer, site, mlp, move=move, held=before.mlp)
    moved = (after.contribution - before.contribution).double()
    found = [(before.output, after.output)]
    found += [(x, after.inputs[module]) for module, x in before.inputs.items() if module in after.inputs]
    allowed = max(_EXACT, _ROUNDINGS * torch.finfo(move.dtype).eps)
    for first, second in found:
        if first.numel() != moved.numel() or bool((first.view_as(moved) == before.contribution).all()):
            continue
        change = (second.double() - first.double()).view_as(moved).to(moved.device)
        factor = float((change * moved).sum() / moved.square().sum())
        if abs(factor) > allowed and float((change - factor * moved).norm() / change.norm()) < allowed:
            return _stated(layer, factor, allowed)
    raise ModelError(
        f"{place} cannot be tapped: this layer does not add a multiple of it to the residual stream; take a dictionary "
        "of hook_resid_post, or name the module itself, such as layers.N.NAME"
    )


def _stated(layer: nn.Module, factor: float, allowed: float) -> float:
    """The number in the layer that was measured: 1 where nothing multiplies, else a setting, else what was found."""
    tensors = [*layer.named_buffers(recurse=False), *layer.named_parameters(recurse=False)]
    stated = [float(value) for value in vars(layer).values() if isinstance(value, float)]
    stated += [float(tensor) for _, tensor in tensors if tensor.numel() == 1]
    near = [value for value in (1.0, *stated) if abs(value - factor) <= allowed * abs(factor)]
    return min(near, key=lambda value: abs(value - factor), default=factor)


def _mlp(loaded: _Readable, layer: int) -> Site | None:
    try:
        return site_of(loaded.layers, Place(layer, MLP_OUT))
    except ModelError:
        return None


@torch.no_grad()
def _pass(
    loaded: _Readable,
    layer: nn.Module,
    site: Site,
    mlp: Site | None,
    *,
    move: Tensor | None = None,
    held: Any = None,
) -> _LayerPass:
    """One pass up to the end of the layer, with the contribution moved and the MLP held where that is asked for."""
    seen, mine = _LayerPass(), threading.get_ident()

    def contribution(_module: object, _args: object, output: Any) -> Any:
        moved = hidden_of(output) if move is None else hidden_of(output) + move
        seen.contribution = moved.clone()  # some layers add in place
        return None if move is None else replace_hidden(output, moved)

    def hold(_module: object, _args: object, output: Any) -> Any:
        seen.mlp = replace_hidden(output, hidden_of(output).clone())
        return None if held is None else replace_hidden(held, hidden_of(held).clone())

    def note(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        given = args[0] if args else named.get("hidden_states")
        if isinstance(given, Tensor):
            seen.inputs.setdefault(module, given.clone())

    def reached(_module: object, _args: object, output: Any) -> None:
        if threading.get_ident() == mine:
            seen.output = hidden_of(output)
            raise _LayerEnd

    ids = torch.arange(1, _TOKENS + 1)[None].to(loaded.device)
    with loaded.passes:
        hooks = [module.register_forward_pre_hook(note, with_kwargs=True) for module in layer.children()]
        hooks += [site.register_forward_hook(contribution), layer.register_forward_hook(reached)]
        hooks += [] if mlp is None else [mlp.register_forward_hook(hold)]
        try:
            loaded.model(input_ids=ids, use_cache=False)
        except _LayerEnd:
            return seen
        finally:
            for hook in hooks:
                hook.remove()
    raise ModelError("the forward pass never reached the tapped layer; the model cannot be tapped there")
