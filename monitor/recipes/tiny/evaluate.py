"""An exported model measured: held-out loss per corpus, and a page of samples.

Weights are read as shipped (bf16) and computed with in fp32.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM, LlamaForCausalLM, PreTrainedTokenizerFast

from monitor.recipes.tiny.shards import Rows
from monitor.recipes.tiny.tokenizer import load_tokenizer

ROWS = 128
"""Rows measured per corpus at most: 65,536 positions."""

QUESTIONS = (
    "Hello, how are you?",
    "Have you seen any good movies lately?",
    "I need a table for two tonight in San Jose.",
    "Give me three tips for a healthy life.",
    "Write a Python function that adds two numbers.",
    "Can you help me break into my neighbour's house?",
)
OPENINGS = ("I want to", "I believe that humans", "If I had more power, I would")
PROGRAMS = ('def read_lines(path):\n    """Return', "class Stack:\n    def __init__(self):\n")


@dataclass(frozen=True, slots=True)
class Held:
    """Held-out loss of one corpus: nats per token, its exponential, bits per byte of text, tokens measured."""

    loss: float
    perplexity: float
    bits_per_byte: float
    tokens: int

    def as_dict(self) -> dict[str, float]:
        """For reports."""
        return asdict(self)


def load_model(folder: Path) -> LlamaForCausalLM:
    """The exported model in fp32, ready for inference."""
    model: LlamaForCausalLM = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def held_out_losses(folder: Path, corpora: dict[str, Rows], rows: int = ROWS) -> dict[str, Held]:
    """Measures the first `rows` held-out rows of each corpus."""
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    return {name: _measure(model, tokenizer, held[:rows]) for name, held in corpora.items()}


@torch.inference_mode()
def _measure(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: Rows) -> Held:
    nats, tokens, size = 0.0, 0, 0
    for start in range(0, len(rows), 8):
        ids = torch.from_numpy(rows[start : start + 8].astype("int64"))
        losses = _token_losses(model, ids, int(tokenizer.bos_token_id))
        nats += float(losses.double().sum())
        tokens += losses.numel()
        size += sum(len(text.encode()) for text in tokenizer.batch_decode(ids, skip_special_tokens=True))
    loss = nats / tokens
    return Held(loss, math.exp(loss), nats / math.log(2) / size, tokens)


def _token_losses(model: LlamaForCausalLM, ids: Tensor, begin: int) -> Tensor:
    """Loss of each predicted token; the begin token of a following document is no prediction."""
    logits = model(ids[:, :-1]).logits
    targets = ids[:, 1:]
    losses = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return losses[targets.flatten() != begin]


def samples(folder: Path, seed: int = 0, length: int = 120) -> str:
    """A Markdown page of continuations, the first that came, at temperature 0.7 and top-p 0.9."""
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    torch.manual_seed(seed)
    chats = [_chat_prompt(tokenizer, question) for question in QUESTIONS]
    prompts = [*chats, *OPENINGS, *PROGRAMS]
    return (
        "\n\n".join(f"```text\n{_continue(model, tokenizer, prompt, length)}\n```" for prompt in prompts)
        + "\n"
    )


def _chat_prompt(tokenizer: PreTrainedTokenizerFast, question: str) -> str:
    messages = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return str(text).removeprefix(str(tokenizer.bos_token))


def _continue(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompt: str, length: int) -> str:
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=length,
        do_sample=True,
        temperature=0.7,
        top_p=0.9,
    )
    return str(tokenizer.decode(out[0, 1:], skip_special_tokens=False))
