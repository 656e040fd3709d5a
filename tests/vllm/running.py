"""The engine on vLLM, over small random models that plain forward passes are compared with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from monitor.model.engine.paged import Limits
from monitor.model.load.model import LoadedModel
from monitor.model.tap.late_probes import LaterTaps
from monitor.records import Clamp, Where
from tests.model.running import LAYER, WATCHED, Running, running
from tests.model.tiny import CONTEXT, LAYERS, VOCABULARY, WIDTH, encode_all, maxima, tokenizer, wrapped

# vLLM's attention on CPUs knows no head that is narrower than 32.
_ONE_HEAD = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "intermediate_size": 64,
    "max_position_embeddings": CONTEXT,
    "head_dim": WIDTH,
}
_FEWER = {
    name: _ONE_HEAD[name]
    for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": _ONE_HEAD,
    "mistral": _ONE_HEAD | {"sliding_window": None},
    "qwen2": _ONE_HEAD,
    "qwen3": _ONE_HEAD,
    "gemma2": _ONE_HEAD | {"query_pre_attn_scalar": WIDTH},
    "gemma3_text": _ONE_HEAD | {"query_pre_attn_scalar": WIDTH, "sliding_window": 16},
    "phi": _ONE_HEAD,
    "phi3": _ONE_HEAD | {"pad_token_id": 0},
    "gemma": _ONE_HEAD,
    "granite": _ONE_HEAD | {"residual_multiplier": 0.22, "logits_scaling": 2.0},
    "glm4": _ONE_HEAD | {"pad_token_id": 0},
    "smollm3": _ONE_HEAD | {"pad_token_id": 0},
    "starcoder2": _ONE_HEAD,
    "nemotron": _ONE_HEAD,
    "gpt2": {
        "vocab_size": VOCABULARY,
        "n_embd": WIDTH,
        "n_layer": LAYERS,
        "n_head": 1,
        "n_positions": CONTEXT,
    },
    "opt": _FEWER | {"ffn_dim": 64, "max_position_embeddings": CONTEXT, "word_embed_proj_dim": WIDTH},
    "bloom": {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "n_layer": LAYERS, "n_head": 1},
    "mixtral": _ONE_HEAD | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    "qwen3_moe": _ONE_HEAD | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "gpt_oss": _ONE_HEAD | {"sliding_window": 16, "num_local_experts": 4, "num_experts_per_tok": 2},
    # These vLLM has no code for: it takes transformers' own, whose layers return the stream with a dimension more.
    "gpt_neox": _FEWER | {"intermediate_size": 64, "max_position_embeddings": CONTEXT},
    "olmo2": _ONE_HEAD,
    "olmo3": _ONE_HEAD,
}
APART: dict[str, dict[str, Any]] = {"cohere": _ONE_HEAD, "stablelm": _ONE_HEAD}
"""Families whose layers return two parts that are not those of the stream."""


def family(kind: str, folder: Path, device: str = "cpu") -> LoadedModel:
    """A random model of a family, saved where vLLM can read it."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **(FAMILIES | APART)[kind], bos_token_id=0, eos_token_id=1)
    loaded = wrapped(AutoModelForCausalLM.from_config(config), kind, torch.float32, device)
    loaded.model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    # Where vLLM takes a model from transformers, it changes the class, and looks for this in plain models of it too.
    loaded.model.base_model.do_not_compile = True
    return replace(loaded, context=CONTEXT - 1)  # vLLM counts the last token, which never runs


def residuals(loaded: LoadedModel, ids: Sequence[int]) -> torch.Tensor:
    """`[tokens, d_model]` after the tapped layer, by a plain forward pass of this sequence alone."""
    kept = []
    handle = loaded.layers[LAYER].register_forward_hook(
        lambda _module, _args, out: kept.append((out[0] if isinstance(out, tuple) else out).detach())
    )
    try:
        with torch.no_grad():
            loaded.model(input_ids=torch.tensor([list(ids)], device=loaded.device))
    finally:
        handle.remove()
    return kept[0].reshape(-1, kept[0].shape[-1]).cpu()


def plain_readings(
    loaded: LoadedModel, sae: Any, ids: Sequence[int], watched: Sequence[int] = WATCHED
) -> np.ndarray:
    """`[tokens, watched]` by a plain forward pass."""
    found = encode_all(sae, residuals(loaded, ids)) / maxima().double()
    return found[:, list(watched)].float().numpy()


def clamped_reference(
    loaded: LoadedModel,
    sae: Any,
    ids: Sequence[int],
    clamp: Clamp,
    *,
    begin: int = 0,
    layer: int = LAYER,
    unit: float | None = None,
) -> torch.Tensor:
    """`[tokens, vocabulary]` logits of a plain pass with a clamp from a position on, never at the first token."""
    target = clamp.target * (float(maxima()[clamp.feature]) if unit is None else unit)

    def hook(_module: Any, _args: Any, out: Any) -> Any:
        x = out[0] if isinstance(out, tuple) else out
        a = encode_all(sae, x[0].cpu()).float()
        which = torch.arange(len(a)) >= max(1, begin)
        if clamp.where is Where.ACTIVE:
            which &= a[:, clamp.feature] > 0
        delta = (target - a[:, clamp.feature])[:, None] * sae.decoder[clamp.feature][None]
        edited = x + torch.where(which[:, None], delta, 0.0)[None].to(x.device)
        return (edited, *out[1:]) if isinstance(out, tuple) else edited

    handle = loaded.layers[layer].register_forward_hook(hook)
    try:
        with torch.no_grad():
            given = torch.tensor([list(ids)], device=loaded.device)
            found: torch.Tensor = loaded.model(input_ids=given).logits[0].cpu()
            return found
    finally:
        handle.remove()


def same(found: np.ndarray, wanted: np.ndarray) -> None:
    """Equal up to the rounding of float32 sums taken in another order."""
    scale = np.abs(wanted).mean()
    assert scale > 0
    np.testing.assert_allclose(found, wanted, atol=2e-4 * max(1.0, scale), rtol=2e-3)


@contextmanager
def on_vllm(
    loaded: LoadedModel,
    folder: Path,
    sae: Any,
    *,
    options: dict[str, Any] | None = None,
    later: tuple[int, ...] = (),
    overlapping: bool = False,
    **more: Any,
) -> Iterator[Running]:
    """As `running`, with vLLM's core as the batcher, and operators for probes at the layers `later`.

    An `overlapping` core lays out a pass while the one before it runs, on a CPU too, where vLLM itself would not.
    """
    from monitor.vllm.core import OVERLAPS, CoreBatcher, CoreOptions
    from monitor.vllm.names import async_scheduling
    from monitor.vllm.operator import Seat
    from monitor.vllm.scorer import CoreScorer, SharedSteps

    limits, caching = (
        more.pop("limits", None) or Limits(running=16, batch_tokens=96),
        more.pop("caching", False),
    )
    batchers: list[CoreBatcher] = []
    scorer = CoreScorer(loaded, lambda: batchers[0])

    def batcher(_loaded: LoadedModel, limits: Limits, engine: Any) -> CoreBatcher:
        given = {"enforce_eager": True, "block_size": 32, OVERLAPS: overlapping} | (options or {})
        core = CoreOptions(folder, "float32", CONTEXT, limits.batch_tokens, caching, 32 << 20, given)
        steps = SharedSteps(engine, lambda: scorer)
        engine._later = LaterTaps(loaded.layers, engine._tap, LAYER)
        seat = Seat(engine._tap, LAYER, engine._later, later)
        batchers.append(CoreBatcher(limits, steps, core, seat))
        return batchers[0]

    with ExitStack() as stack:
        with async_scheduling() if overlapping else nullcontext():
            run = stack.enter_context(running(loaded, sae, limits=limits, batcher=batcher, **more))
        assert (run.engine._batcher._core.batch_queue is not None) is overlapping
        run.scorer = scorer
        yield run
