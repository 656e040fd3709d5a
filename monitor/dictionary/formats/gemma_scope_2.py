"""Reader for Gemma Scope 2: `params.safetensors` and `config.json` of `google/gemma-scope-2-…`, in folders such as
`resid_post/layer_9_width_16k_l0_medium`.

These are JumpReLU dictionaries; nothing is subtracted from the input, and it is not normalised. Some folders have no
`config.json`, and then model, layer and hook point are taken from the folders' names. Transcoders and cross-layer
transcoders are refused, since they read one hook point and write another.
"""

from __future__ import annotations

import re
from typing import Any

from monitor.dictionary.formats.card import DictionaryCard, layer_of
from monitor.dictionary.formats.common import number_in
from monitor.dictionary.formats.files import read_json
from monitor.dictionary.formats.location import Location
from monitor.dictionary.formats.reader import DictionaryParts
from monitor.dictionary.formats.tensors import Tensors
from monitor.dictionary.sae import Activation
from monitor.errors import DictionaryError

CONFIG = "config.json"
WEIGHTS = "params.safetensors"
_TENSORS = ("w_enc", "w_dec", "b_enc", "b_dec", "threshold")
_HOOKS = {"resid_post": "hook_resid_post", "mlp_out": "hook_mlp_out", "attn_out": "attn.hook_z"}
_HF_HOOKS = (
    (r"\.layers\.\d+\.output$", "resid_post"),
    (r"\.post_feedforward_layernorm\.output$", "mlp_out"),
    (r"\.self_attn\.o_proj\.input$", "attn_out"),
)


class GemmaScope2Reader:
    """Reads one `params.safetensors`."""

    name = "gemma-scope-2"
    wants = f"{WEIGHTS} (and {CONFIG}) in a folder such as resid_post/layer_9_width_16k_l0_medium"

    def detects(self, location: Location) -> bool:
        """See `FormatReader`."""
        return WEIGHTS in (location.chosen, *(location.names if location.chosen is None else ()))

    def read(self, location: Location) -> DictionaryParts:
        """See `FormatReader`."""
        config = read_json(location.path(CONFIG)) if CONFIG in location.names else {}
        _refuse_others(config, location)
        path = location.path(WEIGHTS)
        tensors = Tensors(path)
        tensors.require(_TENSORS, kind="a Gemma Scope 2 dictionary of one hook point")
        encoder = tensors.matrix("w_enc", transposed=True)
        features, width = encoder.shape
        parts = {
            "activation": Activation.JUMPRELU,
            "encoder_bias": tensors.vector("b_enc", features),
            "decoder_bias": tensors.vector("b_dec", width),
            "threshold": tensors.vector("threshold", features).relu(),
        }
        matrices = {"encoder": encoder, "decoder": tensors.matrix("w_dec", like=encoder)}
        return DictionaryParts(matrices, parts, _card(config, location.address), (path,))


def _refuse_others(config: dict[str, Any], location: Location) -> None:
    architecture = config.get("architecture", "jump_relu")
    if architecture != "jump_relu":
        raise DictionaryError(
            f"{location.label}: architecture {architecture!r} cannot be read; only jump_relu can"
        )
    inside, out = config.get("hf_hook_point_in"), config.get("hf_hook_point_out")
    folders = re.search(r"/(transcoder|clt)(_all)?(/|$)", location.address)
    if (out and out != inside) or config.get("affine_connection") or folders:
        raise DictionaryError(
            f"{location.label}: this is a transcoder; only a dictionary of one hook point can be watched"
        )


def _card(config: dict[str, Any], address: str) -> DictionaryCard:
    layer, kind = number_in(address, r"layer_(\d+)"), None
    hook_in = config.get("hf_hook_point_in")
    if isinstance(hook_in, str):
        layer = layer_of(hook_in) if layer is None else layer
        layer = number_in(hook_in, r"layers\.(\d+)") if layer is None else layer
        kind = next((kind for pattern, kind in _HF_HOOKS if re.search(pattern, hook_in)), None)
    if kind is None and (named := re.search(r"(?:^|/)(resid_post|mlp_out|attn_out)(?:_all)?/", address)):
        kind = named[1]
    hook = f"blocks.{layer}.{_HOOKS[kind]}" if kind is not None and layer is not None else hook_in
    declared = config.get("l0")
    return DictionaryCard(
        model_name=_model(config.get("model_name"), address),
        hook_name=hook,
        layer=layer_of(hook),
        prepend_bos=True,
        context_size=1024,
        dataset="monology/pile-uncopyrighted",
        l0=float(declared) if isinstance(declared, int | float) else None,
    )


def _model(name: Any, address: str) -> str | None:
    """The model's name on the hub. Configurations write `gemma-v3-1b-pt`; on the hub the smallest has no `-pt`."""
    if not isinstance(name, str):
        found = re.search(r"gemma-scope-2-((?:270m|1b|4b|12b|27b)-(?:pt|it))", address)
        if found is None:
            return None
        name = f"gemma-3-{found[1]}"
    name = str(name).removeprefix("google/").replace("-v3", "-3")
    return f"google/{name.removesuffix('-pt') if '270m' in name else name}"
