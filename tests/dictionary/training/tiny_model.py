"""A language model that is real but tiny, text for it, and options for a short training of a dictionary."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


def write_model(folder: Path, *, begins: bool = True) -> Path:
    """Four layers, width 32, a token for each byte and a BOS, which begins texts where `begins` says so."""
    alphabet = {"<s>": 0, **{c: i + 1 for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}}
    tokenizer = Tokenizer(models.BPE(alphabet, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if begins:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=257,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=0,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def write_text(path: Path) -> Path:
    words = ("alpha", "beta", "gamma", "delta", "epsilon")
    lines = [" ".join(words[(i * j + j) % 5] for j in range(40)) for i in range(400)]
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    return path


def options(model: Path, data: Path, out: Path, *more: str) -> list[str]:
    numbers = ["--batch", "256", "--buffer", "1024", "--length", "32", "--held-out", "600", "--k", "4"]
    return [
        "--model",
        str(model),
        "--data",
        f"{data}=2",
        "--out",
        str(out),
        "--device",
        "cpu",
        *numbers,
        *more,
    ]
