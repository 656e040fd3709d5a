"""Hook points: parse the name that a dictionary gives to its tensor, and find that tensor in a loaded model.

A name may be one of TransformerLens (`blocks.4.hook_resid_post`; from version 3 on `blocks.4.hook_out`), of a Hugging
Face module (`model.layers.4`, `gpt_neox.layers.4.mlp`, `….output`, `….input`) or of dictionary_learning
(`resid_post_layer_4`).
"""

from __future__ import annotations

import enum
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from monitor.errors import ModelError

MLP_OUT, ATTN_OUT = "mlp_out", "attn_out"
"""What a layer's MLP or attention adds to the residual stream; after its output norm in families that have one."""

MLP, ATTN = "mlp", "attn"
"""The MLP or the attention module of a layer, under whichever name a family gives it: its output as it is."""

SUPPORTED = (
    "blocks.N.hook_resid_pre, blocks.N.hook_resid_post, blocks.N.hook_mlp_out, blocks.N.hook_attn_out, "
    "blocks.N.hook_in, blocks.N.hook_out, blocks.N.mlp.hook_out, blocks.N.attn.hook_out, or the name of a module such "
    "as model.layers.N, layers.N.output, gpt_neox.layers.N or transformer.h.N.mlp"
)

_TRANSFORMER_LENS = re.compile(r"^blocks\.(\d+)\.(?:hook_)?(.+)$")
_MODULE = re.compile(
    r"^(?:[\w.]*\.)?(?:layers|layer|h|block|blocks)\.(\d+)(?:\.(?!input$|output$)([\w.]+?))?(?:\.(input|output))?$"
)
_FLAT = re.compile(r"^(resid_pre|resid_post|resid|mlp_out|mlp|attn_out|attn)_layer_?(\d+)$")
_SOME_HOOK = re.compile(r"hook|\b(?:layers?|h|blocks?)[._]\d|_layer_?\d|\.")
_POINTS = {
    "mlp_out": MLP_OUT,
    "mlp": MLP_OUT,
    "ln2_post.hook_out": MLP_OUT,
    "mlp.hook_out": MLP,
    "attn_out": ATTN_OUT,
    "attn": ATTN_OUT,
    "ln1_post.hook_out": ATTN_OUT,
    "attn.hook_out": ATTN,
}
_MLPS = ("mlp", "feed_forward", "feedforward", "ffn", "block_sparse_moe", "moe")
_ATTENTIONS = ("self_attn", "self_attention", "attention", "attn")
_NORMS_AFTER_MLP = ("post_feedforward_layernorm", "post_mlp_layernorm")


class Side(enum.StrEnum):
    """Whether a hook point is the output or the input of its module."""

    OUTPUT = "output"
    INPUT = "input"


@dataclass(frozen=True, slots=True)
class Place:
    """A tensor `[batch, time, d_model]` of the forward pass; by default the residual stream after a layer."""

    layer: int
    point: str = ""
    """Empty for the layer itself; else `mlp_out`, `attn_out`, or the path of a module inside the layer."""
    side: Side = Side.OUTPUT

    @property
    def residual(self) -> bool:
        """True where the tensor is the residual stream itself and not something that is added to it."""
        return not self.point

    def __str__(self) -> str:
        """The name in TransformerLens where it has one, else a module path."""
        if not self.point:
            return f"blocks.{self.layer}.hook_resid_{'post' if self.side is Side.OUTPUT else 'pre'}"
        if self.point in (MLP_OUT, ATTN_OUT):
            return f"blocks.{self.layer}.hook_{self.point}"
        return f"layers.{self.layer}.{self.point}.{self.side}"


def names_a_place(hook_name: str) -> bool:
    """True where a text looks like the name of a hook; False for others, such as the name of a download folder."""
    return bool(_SOME_HOOK.search(hook_name))


def parse_place(hook_name: str) -> Place:
    """The hook point that a dictionary names. Raises ModelError where it cannot be read and clamped here."""
    if match := _TRANSFORMER_LENS.match(hook_name):
        found = _named(int(match[1]), match[2]) or _module(hook_name)
    elif match := _FLAT.match(hook_name):
        found = _named(int(match[2]), match[1])
    else:
        found = _module(hook_name)
    if found is None:
        raise ModelError(
            f"the dictionary reads {hook_name!r}, which cannot be tapped here; what can: {SUPPORTED}"
            + (
                ""
                if names_a_place(hook_name)
                else ". If this is no name of a hook, give the layer with --layer"
            )
        )
    return found


def _named(layer: int, point: str) -> Place | None:
    if point in ("resid_post", "resid", "out"):
        return Place(layer)
    if point in ("resid_pre", "in"):
        return _before(layer)
    return Place(layer, _POINTS[point]) if point in _POINTS else None


def _module(name: str) -> Place | None:
    match = _MODULE.match(name)
    if match is None or "hook_" in name:
        return None
    layer, inside, side = int(match[1]), match[2] or "", Side(match[3] or "output")
    if not inside:
        return Place(layer) if side is Side.OUTPUT else _before(layer)
    return Place(layer, inside, side)


def _before(layer: int) -> Place:
    """The residual stream before a layer, which is the one after the previous layer."""
    return Place(layer - 1) if layer > 0 else Place(0, side=Side.INPUT)


Hook = Callable[[nn.Module, Any, Any], Any]
"""A hook as `nn.Module.register_forward_hook` takes it: `(module, arguments, output)` → new output, or None."""


@dataclass(frozen=True, slots=True)
class Site:
    """A hook point in a loaded model. A hook is registered in the same way on an output and on an input."""

    module: nn.Module
    side: Side = Side.OUTPUT
    factor: float = 1.0
    """What the layer multiplies the tensor with before it adds it to the residual stream; hooks see the product."""

    def register_forward_hook(self, hook: Hook) -> Any:
        """Call `hook(module, arguments, tensor)` in every pass. A result other than None replaces the tensor."""
        if self.side is Side.OUTPUT:
            return self.module.register_forward_hook(hook if self.factor == 1 else self._multiplied(hook))

        def before(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
            edited = hook(module, args, args[0] if args else named["hidden_states"])
            if edited is None:
                return None
            return ((edited, *args[1:]), named) if args else (args, {**named, "hidden_states": edited})

        return self.module.register_forward_pre_hook(before, with_kwargs=True)

    def _multiplied(self, hook: Hook) -> Hook:
        """The hook for the module's own output. What the hook leaves as it is stays as it is to the bit."""

        def multiplied(module: nn.Module, args: Any, output: Any) -> Any:
            raw = hidden_of(output)
            seen = raw * self.factor
            edited = hook(module, args, replace_hidden(output, seen))
            if edited is None:
                return None
            change = (hidden_of(edited) - seen) / self.factor
            return replace_hidden(edited, torch.where(change == 0, raw, raw + change))

        return multiplied


def site_of(layers: nn.ModuleList, place: Place) -> Site:
    """The hook point in these layers, without its factor. ModelError where there is no such layer or module."""
    if not 0 <= place.layer < len(layers):
        raise ModelError(f"layer {place.layer} does not exist; the model has layers 0 to {len(layers) - 1}")
    layer = layers[place.layer]
    if not place.point:
        return Site(layer, place.side)
    if place.point in (MLP_OUT, ATTN_OUT):
        return Site(_contribution(layer, place))
    try:
        return Site(layer.get_submodule(place.point), place.side)
    except AttributeError:
        if found := _named_child(layer, {MLP: _MLPS, ATTN: _ATTENTIONS}.get(place.point, ())):
            return Site(found, place.side)
        raise ModelError(
            f"layer {place.layer} of this model has no module {place.point!r}; it has {_children(layer)}"
        ) from None


def _contribution(layer: nn.Module, place: Place) -> nn.Module:
    """The module whose output is added to the residual stream: the MLP or the attention, or its output norm."""
    children = dict(layer.named_children())
    output_norm = next((name for name in _NORMS_AFTER_MLP if name in children), None)
    names: tuple[str, ...]
    if place.point == MLP_OUT:
        names = ((output_norm,) if output_norm else ()) + _MLPS
    elif output_norm is None:
        names = _ATTENTIONS
    else:
        # These norm the attention's output only in families that also norm the MLP's output. In all others a norm of
        # this name is the input norm of the MLP.
        names = ("post_self_attn_layernorm", "post_attention_layernorm", *_ATTENTIONS)
    found = _named_child(layer, names)
    if found is None:
        raise ModelError(
            f"the module that gives {place.point} was not found in layer {place.layer}, which has {_children(layer)}; "
            "name the module instead, such as layers.N.NAME"
        )
    if "residual" in inspect.signature(found.forward).parameters:
        raise ModelError(
            f"{place.point} of layer {place.layer} cannot be tapped: in this family the module adds the residual "
            "stream itself; take a dictionary of hook_resid_post"
        )
    return found


def _named_child(layer: nn.Module, names: Sequence[str]) -> nn.Module | None:
    """The first of these modules that a layer has."""
    children = dict(layer.named_children())
    return next((children[name] for name in names if name in children), None)


def _children(layer: nn.Module) -> str:
    return ", ".join(name for name, _ in layer.named_children())


def hidden_of(output: Any) -> Tensor:
    """The hidden states `[batch, time, width]` in a module's output, which some families wrap in a tuple.

    Raises ModelError where the output is something else.
    """
    hidden = output[0] if isinstance(output, tuple) else output
    if not isinstance(hidden, Tensor) or hidden.dim() != 3:
        found = (
            f"a tensor of {hidden.dim()} dimensions" if isinstance(hidden, Tensor) else type(hidden).__name__
        )
        raise ModelError(f"the tapped module returned {found}; expected hidden states [batch, time, width]")
    return hidden


def replace_hidden(output: Any, hidden: Tensor) -> Any:
    """The same output with its hidden states replaced."""
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden
