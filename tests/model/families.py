"""Small random models of every family that users bring, beside the ten of `tiny`."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from monitor.model.load.model import LoadedModel
from tests.model.tiny import COMMON as _COMMON
from tests.model.tiny import CONFIGS, CONTEXT, LAYERS, VOCABULARY, WIDTH, wrapped
from tests.model.tiny import LLAMA_LIKE as _LLAMA_LIKE

_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_SLIDING = {"head_dim": 8, "sliding_window": 16}
_RECURRENT = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "state_size": 8}
# As many layers as the text decoder: the tower must be told apart by more than its length.
_TOWER = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
_QWEN_TOWER = {"depth": LAYERS, "num_heads": 2}
_MROPE = {"rope_type": "default", "type": "mrope", "mrope_section": [1, 1, 2]}

_MINIMAX = ("full_attn", "linear_attn", "mlp")

TEXT: dict[str, dict] = {
    "mistral": _LLAMA_LIKE | {"sliding_window": 16},
    "qwen2_moe": _LLAMA_LIKE | _EXPERTS | {"shared_expert_intermediate_size": 16},
    "qwen3_moe": _LLAMA_LIKE | _EXPERTS | {"head_dim": 8},
    "gemma": _LLAMA_LIKE | {"head_dim": 8},
    "gemma3_text": _LLAMA_LIKE | _SLIDING,
    "phi": _LLAMA_LIKE,
    "olmo": _LLAMA_LIKE,
    "opt": _COMMON | {"ffn_dim": 64, "max_position_embeddings": CONTEXT, "word_embed_proj_dim": WIDTH},
    "granite": _LLAMA_LIKE | {"residual_multiplier": 0.22, "logits_scaling": 2.0},
    "cohere": _LLAMA_LIKE,
    "starcoder2": _LLAMA_LIKE,
    "glm4": _LLAMA_LIKE | {"head_dim": 8, "pad_token_id": 0},
    "smollm3": _LLAMA_LIKE | {"pad_token_id": 0},
    "gpt_bigcode": CONFIGS["gpt2"],
    "gpt_oss": _LLAMA_LIKE
    | _SLIDING
    | {
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    },
}
"""Text models, configurations by model type."""

WRAPPERS: dict[str, dict] = {
    "gemma3": {
        "text_config": _LLAMA_LIKE | _SLIDING | {"model_type": "gemma3_text"},
        "vision_config": _TOWER | {"model_type": "siglip_vision_model"},
        "mm_tokens_per_image": 4,
    },
    "llava": {
        "text_config": _LLAMA_LIKE | {"model_type": "llama"},
        "vision_config": _TOWER | {"model_type": "clip_vision_model"},
    },
    "mistral3": {
        "text_config": _LLAMA_LIKE | {"model_type": "mistral", "sliding_window": None},
        "vision_config": _TOWER | {"model_type": "pixtral"},
    },
    "qwen2_vl": {
        "text_config": _LLAMA_LIKE | {"rope_scaling": _MROPE},
        "vision_config": _QWEN_TOWER | {"embed_dim": 16, "hidden_size": WIDTH, "mlp_ratio": 2},
    },
    "qwen2_5_vl": {
        "text_config": _LLAMA_LIKE | {"rope_scaling": _MROPE},
        "vision_config": _QWEN_TOWER | {"hidden_size": 16, "out_hidden_size": WIDTH, "intermediate_size": 32},
    },
    "qwen3_vl": {
        "text_config": _LLAMA_LIKE | {"head_dim": 8, "rope_scaling": _MROPE},
        "vision_config": _QWEN_TOWER
        | {
            "hidden_size": 16,
            "out_hidden_size": WIDTH,
            "intermediate_size": 32,
            "deepstack_visual_indexes": [0],
        },
    },
}
"""Models that see images too; only their text part is run."""

UNPAGED: dict[str, dict] = {
    "falcon": _COMMON | {"max_position_embeddings": CONTEXT},
    "gptj": CONFIGS["gpt2"] | {"rotary_dim": 4},
    "gpt_neo": _COMMON
    | {
        "num_layers": LAYERS,
        "num_heads": 4,
        "max_position_embeddings": CONTEXT,
        "attention_types": [[["global", "local"], 2]],
    },
    "bloom": {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "n_layer": LAYERS, "n_head": 4},
    "mpt": {
        "vocab_size": VOCABULARY,
        "d_model": WIDTH,
        "n_layers": LAYERS,
        "n_heads": 4,
        "max_seq_len": CONTEXT,
    },
    "stablelm": _LLAMA_LIKE,
    "deepseek_v3": _LLAMA_LIKE
    | {
        "num_key_value_heads": 4,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 8,
        "q_lora_rank": 8,
        "qk_rope_head_dim": 4,
        "v_head_dim": 8,
        "qk_nope_head_dim": 4,
    },
}
"""Families whose attention cannot read a paged cache, or whose keys and values it cannot hold."""

RECURRENT: dict[str, dict] = {
    "mamba": _RECURRENT,
    "mamba2": _RECURRENT | {"num_heads": 4, "head_dim": 16, "n_groups": 1},
    "rwkv": {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": LAYERS},
    "jamba": _LLAMA_LIKE
    | _EXPERTS
    | {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "mamba_d_state": 8,
        "mamba_dt_rank": 4,
        "use_mamba_kernels": False,
    },
    "lfm2": _LLAMA_LIKE | {"layer_types": ["conv", "full_attention"] * 2},
    "minimax": _LLAMA_LIKE
    | {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "block_size": 16}
    | {"layer_types": ["linear_attention", "full_attention"] * 2}
    | {f"{kind}_beta_factor": 0.7 for kind in _MINIMAX},
    "qwen3_next": _LLAMA_LIKE
    | _EXPERTS
    | {
        "head_dim": 8,
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "shared_expert_intermediate_size": 16,
    },
}
"""Families with layers that carry a state from token to token."""

SEPARATE = UNPAGED | RECURRENT
"""Families that continuous batching cannot run."""

FALLBACK: dict[str, dict] = {
    "nemotron": _LLAMA_LIKE,
    "diffllama": _LLAMA_LIKE,
    "doge": _LLAMA_LIKE,
    "jetmoe": _LLAMA_LIKE
    | {"num_key_value_heads": 4, "kv_channels": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
    "gemma4_text": _LLAMA_LIKE
    | _SLIDING
    | {
        "global_head_dim": 16,
        "hidden_size_per_layer_input": 0,
        "num_kv_shared_layers": 0,
        "pad_token_id": 0,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
}
"""Families of which nothing tells before a try that continuous batching dies of them, or runs them wrongly."""

PICKING: dict[str, dict] = {
    kind: UNPAGED["deepseek_v3"] | {"index_topk": 16, "index_head_dim": 8, "index_n_heads": 4}
    for kind in ("deepseek_v32", "glm_moe_dsa", "axk2")
}
"""Families whose attention picks some of the tokens before, other ones in a longer text: none is served."""

FAMILIES = TEXT | WRAPPERS | SEPARATE | FALLBACK


def family_model(kind: str, dtype: torch.dtype = torch.float32) -> LoadedModel:
    """A random model of a family, wrapped as if it had been loaded."""
    torch.manual_seed(0)
    given = (FAMILIES | PICKING)[kind]
    ids = {} if "text_config" in given else {"bos_token_id": 0, "eos_token_id": 1}
    config = AutoConfig.for_model(kind, **given, **ids)
    auto = (
        AutoModelForCausalLM if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING else AutoModelForImageTextToText
    )
    model = (
        auto.from_config(config, experts_implementation="eager")
        if _has_experts(given)
        else auto.from_config(config)
    )
    return wrapped(model, kind, dtype)


def _has_experts(given: dict) -> bool:
    return any("expert" in name for name in given)
