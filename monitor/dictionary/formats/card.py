"""What a dictionary says about itself: where it belongs and what its makers measured.

Knows names of places in a model. Does not know the model, nor whether the statements are true.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TRANSFORMER_LENS = re.compile(
    r"^blocks\.(\d+)\.hook_(resid_post|resid_pre|mlp_out|resid_mid|attn_out|mlp_in)$"
)
_HUGGING_FACE = re.compile(r"^(?:model\.|transformer\.|gpt_neox\.)*(?:layers|h)\.(\d+)(?:\.output)?$")


@dataclass(frozen=True)
class Card:
    """Everything optional: published dictionaries say more or less about themselves."""

    model_name: str | None = None
    """Name or path of the model it was trained on."""
    hook_name: str | None = None
    """As stored: `blocks.8.hook_resid_post`, or a Hugging Face module name."""
    layer: int | None = None
    """Decoder layer whose output it reads; None where the place is not a residual stream, or not named."""
    prepend_bos: bool | None = None
    context_size: int | None = None
    """Tokens in a training context."""
    dataset: str | None = None
    neuronpedia_id: str | None = None
    l0: float | None = None
    """Declared mean number of active features at a token."""
    explained_variance: float | None = None
    """Declared 1 − FVU."""


def layer_of(hook_name: str | None) -> int | None:
    """Index of the decoder layer whose output this is; None for any other place.

    `hook_resid_pre` of layer L is the output of layer L − 1; before layer 0 there is none.
    """
    if hook_name is None:
        return None
    if match := _HUGGING_FACE.match(hook_name):
        return int(match[1])
    match = _TRANSFORMER_LENS.match(hook_name)
    if match is None or match[2] not in ("resid_post", "resid_pre"):
        return None
    layer = int(match[1]) - (match[2] == "resid_pre")
    return layer if layer >= 0 else None
