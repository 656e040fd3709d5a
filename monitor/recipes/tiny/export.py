"""Writes a trained model to a folder from which transformers' `Auto` classes load it, in bf16."""

import copy
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast


def export_model(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Saves a bf16 copy of the model, its generation settings and its tokenizer into `folder`."""
    narrow = copy.deepcopy(model).to(torch.bfloat16).eval()
    narrow.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    folder.mkdir(parents=True, exist_ok=True)
    narrow.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
