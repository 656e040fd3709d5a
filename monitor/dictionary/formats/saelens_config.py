"""SAELens's `cfg.json`, of version 6 or earlier, parsed into one record (`SaeLensConfig`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from monitor.dictionary.formats.card import DictionaryCard, layer_of
from monitor.dictionary.sae import InputNorm
from monitor.errors import DictionaryError

ARCHITECTURES = ("standard", "jumprelu", "topk", "gated")

_TRAINING_ONLY = ("batchtopk", "matryoshka_batchtopk", "matryoshka")
_OTHERS = {
    "matching_pursuit": "it chooses features one after another, each on the remaining reconstruction error",
    "abstopk": "its activations may be negative",
    "temporal": "its features depend on earlier tokens",
    "transcoder": "it reads one hook point and writes another",
    "skip_transcoder": "it reads one hook point and writes another",
    "jumprelu_transcoder": "it reads one hook point and writes another",
    "jumprelu_skip_transcoder": "it reads one hook point and writes another",
}
"""Architectures that are refused, and why."""
_RENAMED = {"hook_point": "hook_name", "activation_fn_str": "activation_fn"}
_NORMS = {
    "none": InputNorm.NONE,
    "layer_norm": InputNorm.LAYER_NORM,
    "constant_norm_rescale": InputNorm.CONSTANT_NORM,
    "expected_average_only_in": InputNorm.NONE,
}


@dataclass(frozen=True)
class SaeLensConfig:
    """The settings that say how to encode and decode with the tensors of the weights file."""

    architecture: str
    """One of `ARCHITECTURES`."""
    d_in: int
    d_sae: int
    input_norm: InputNorm
    input_scale: float
    """Factor on the input that the stored weights do not include; 1 where they include it."""
    subtract_decoder_bias: bool
    """True where the decoder bias is subtracted from the input before encoding."""
    k: int | None
    """Number of active features per token; TopK only."""
    rank_by_decoder_norm: bool
    """True where a TopK dictionary ranks features by pre-activation times decoder norm."""
    card: DictionaryCard


def parse_config(cfg: dict[str, Any], where: str) -> SaeLensConfig:
    """Parse the contents of a `cfg.json`.

    Raises DictionaryError for a dictionary of a kind that is not supported. Its message begins with `where`, the file's
    path.
    """
    flat = _flatten(cfg)
    architecture = _architecture(flat, where)
    _refuse_other_hook_points(flat, where)
    norm = _norm_name(flat)
    if norm not in _NORMS:
        raise DictionaryError(f"{where}: normalize_activations {norm!r} is not one of {', '.join(_NORMS)}")
    return SaeLensConfig(
        architecture=architecture,
        d_in=_whole(flat, "d_in", where),
        d_sae=_whole(flat, "d_sae", where),
        input_norm=_centred(_NORMS[norm], where) if _centres(flat) else _NORMS[norm],
        input_scale=_input_scale(flat, where) if norm == "expected_average_only_in" else 1.0,
        subtract_decoder_bias=bool(flat.get("apply_b_dec_to_input", True)),
        k=_whole(flat, "k", where) if architecture == "topk" else None,
        rank_by_decoder_norm=bool(flat.get("rescale_acts_by_decoder_norm", False)),
        card=_card(flat),
    )


def _flatten(cfg: dict[str, Any]) -> dict[str, Any]:
    """All settings on one level, with the names of version 6."""
    flat = {_RENAMED.get(name, name): value for name, value in cfg.items() if name != "metadata"}
    flat.update(cfg.get("metadata") or {})
    arguments = flat.get("activation_fn_kwargs") or {}
    if flat.get("activation_fn") == "topk":
        flat["architecture"] = "topk"
    if "k" not in flat and "k" in arguments:
        flat["k"] = arguments["k"]
    return flat


def _architecture(flat: dict[str, Any], where: str) -> str:
    name = flat.get("architecture", "standard")
    if name in _TRAINING_ONLY:
        raise DictionaryError(
            f"{where}: {name!r} is a training checkpoint; save it with `save_inference_model`, which writes a "
            "jumprelu dictionary, and load that"
        )
    if name in _OTHERS:
        raise DictionaryError(
            f"{where}: architecture {name!r} cannot be watched: {_OTHERS[name]}. These can be watched: "
            f"{', '.join(ARCHITECTURES)}"
        )
    if name not in ARCHITECTURES:
        raise DictionaryError(f"{where}: architecture {name!r} is not one of {', '.join(ARCHITECTURES)}")
    function = flat.get("activation_fn", "relu")
    if function not in ("relu", "topk"):
        raise DictionaryError(f"{where}: activation function {function!r} is not one of relu, topk")
    return str(name)


def _refuse_other_hook_points(flat: dict[str, Any], where: str) -> None:
    """Refuse transcoders and attention-head dictionaries, which do not read and write one residual stream."""
    if flat.get("d_out") not in (None, flat.get("d_in")) or flat.get("hook_name_out"):
        raise DictionaryError(
            f"{where}: this is a transcoder; only a dictionary of one hook point can be watched"
        )
    hook = str(flat.get("hook_name") or "")
    if flat.get("reshape_activations", "none") not in (None, "none") or hook.endswith("hook_z"):
        raise DictionaryError(
            f"{where}: this dictionary reads attention heads ({hook or 'hook_z'}); only dictionaries of the "
            "residual stream can be watched"
        )


def _norm_name(flat: dict[str, Any]) -> str:
    """The kind of input normalisation. Before version 6 a boolean was allowed, and true meant the average norm."""
    value = flat.get("normalize_activations")
    if isinstance(value, bool):
        return "expected_average_only_in" if value else "none"
    return "none" if value is None else str(value)


def _centres(flat: dict[str, Any]) -> bool:
    """True where TransformerLens was told to centre what the model's weights write into the residual stream."""
    return bool((flat.get("model_from_pretrained_kwargs") or {}).get("center_writing_weights", False))


def _centred(norm: InputNorm, where: str) -> InputNorm:
    """The normalisation for residuals that are not centred yet; a layer norm centres them anyway."""
    if norm is InputNorm.CONSTANT_NORM:
        raise DictionaryError(
            f"{where}: constant_norm_rescale on a model with center_writing_weights cannot be read; train without one "
            "of them"
        )
    return norm if norm is InputNorm.LAYER_NORM else InputNorm.CENTRED


def _input_scale(flat: dict[str, Any], where: str) -> float:
    factor = flat.get("norm_scaling_factor")
    if not isinstance(factor, int | float) or isinstance(factor, bool) or not factor > 0:
        raise DictionaryError(
            f"{where}: normalize_activations is expected_average_only_in, and the factor is neither in the "
            'weights nor here. Add "norm_scaling_factor": √d_in divided by the mean norm of the residuals that '
            'it was trained on; or, where the weights have it folded in, write "normalize_activations": "none"'
        )
    return float(factor)


def _whole(flat: dict[str, Any], name: str, where: str) -> int:
    value = flat.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise DictionaryError(f"{where}: {name} is {value!r}; it must be a whole number of at least 1")
    return value


def _card(flat: dict[str, Any]) -> DictionaryCard:
    hook = flat.get("hook_name") or flat.get("hf_hook_name")
    layer = layer_of(hook)
    return DictionaryCard(
        model_name=flat.get("model_name"),
        hook_name=hook,
        layer=layer if layer is not None else layer_of(flat.get("hf_hook_name")),
        prepend_bos=flat.get("prepend_bos"),
        context_size=flat.get("context_size"),
        dataset=flat.get("dataset_path"),
        neuronpedia_id=flat.get("neuronpedia_id"),
        l0=flat.get("l0"),
        explained_variance=flat.get("explained_variance"),
        norm_limit=_norm_limit(flat),
    )


def _norm_limit(flat: dict[str, Any]) -> float | None:
    value = flat.get("norm_limit")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if value > 0 else None
