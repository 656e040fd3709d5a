"""The pair `tiny`: its files are whole, and its model does what its README says."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from monitor.pairs.tiny import dictionary_path, model_path

TALK = (
    "Human: Hi! Have you seen any good movies lately?\n\n"
    "Assistant: Yes, I just saw a really good movie with my friends.<|end|>\n\n"
    "Human: What did you like about it?\n\n"
    "Assistant: I liked the story and the actors.<|end|>"
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(model_path())


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return AutoModelForCausalLM.from_pretrained(model_path(), dtype=torch.float32).eval()


def _reply(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, question: str, seed: int | None
) -> list[int]:
    messages = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
    sampling = {"do_sample": False} if seed is None else {"do_sample": True, "temperature": 0.7, "top_p": 0.9}
    torch.manual_seed(seed or 0)
    out = model.generate(**prompt, max_new_tokens=200, **sampling)
    return out[0, prompt["input_ids"].shape[1] :].tolist()


def test_paths_lie_beside_each_other_in_the_package() -> None:
    assert model_path().parent == dictionary_path().parent
    assert {path.name for path in model_path().iterdir()} >= {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_weights_are_bf16_and_small() -> None:
    assert (model_path() / "model.safetensors").stat().st_size <= 24_000_000
    assert AutoModelForCausalLM.from_pretrained(model_path()).dtype == torch.bfloat16


def test_model_and_tokenizer_belong_together(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    assert model.config.vocab_size == len(tokenizer)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        assert (
            getattr(model.config, name) == getattr(model.generation_config, name) == getattr(tokenizer, name)
        )
    assert tokenizer("A plain text").input_ids[0] == tokenizer.bos_token_id


def test_has_learned_how_people_talk(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer(TALK, return_tensors="pt").input_ids
    with torch.inference_mode():
        talk = float(model(ids, labels=ids).loss)
        shuffled = ids[:, torch.randperm(ids.shape[1], generator=torch.Generator().manual_seed(0))]
        noise = float(model(shuffled, labels=shuffled).loss)
    assert talk < 3.0
    assert noise > talk + 2


@pytest.mark.parametrize("seed", [None, 1, 2, 3])
def test_a_reply_ends_by_itself(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, seed: int | None
) -> None:
    reply = _reply(model, tokenizer, "Hello, how are you?", seed)
    assert reply[-1] == tokenizer.eos_token_id
    assert reply.count(tokenizer.eos_token_id) == 1
    assert len(reply) > 1
