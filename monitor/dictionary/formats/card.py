"""The dictionary card: model, hook point and training facts that a published dictionary states about itself.

The statements are read as they stand; nothing here checks them against a model.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TRANSFORMER_LENS = re.compile(
    r"^blocks\.(\d+)\.hook_(resid_post|resid_pre|mlp_out|resid_mid|attn_out|mlp_in|out|in)$"
)
_HUGGING_FACE = re.compile(r"^(?:model\.|transformer\.|gpt_neox\.)*(?:layers|h)\.(\d+)(?:\.output)?$")


@dataclass(frozen=True)
class DictionaryCard:
    """What the makers of a dictionary state about it. Every field is optional, since formats state different things."""

    model_name: str | None = None
    """Name or path of the model it was trained on."""
    hook_name: str | None = None
    """The hook point as the files name it: `blocks.8.hook_resid_post`, or a Hugging Face module name."""
    layer: int | None = None
    """Index of the decoder layer whose output it reads; None for another hook point, or where none is named."""
    prepend_bos: bool | None = None
    """True where training texts began with the BOS token."""
    context_size: int | None = None
    """Number of tokens in a training context."""
    dataset: str | None = None
    neuronpedia_id: str | None = None
    l0: float | None = None
    """Stated mean number of active features per token."""
    explained_variance: float | None = None
    """Stated 1 − FVU (fraction of variance unexplained)."""
    norm_limit: float | None = None
    """Norm above which a residual counts as an attention sink's, which training left out; None where not stated."""


def layer_of(hook_name: str | None) -> int | None:
    """Index of the decoder layer whose output this hook point is; None for any other hook point.

    `hook_resid_pre` of layer L is the output of layer L − 1. For layer 0 the result is None. TransformerLens 3 writes
    `hook_in` and `hook_out`.
    """
    if hook_name is None:
        return None
    if match := _HUGGING_FACE.match(hook_name):
        return int(match[1])
    match = _TRANSFORMER_LENS.match(hook_name)
    if match is None or match[2] not in ("resid_post", "resid_pre", "out", "in"):
        return None
    layer = int(match[1]) - (match[2] in ("resid_pre", "in"))
    return layer if layer >= 0 else None
