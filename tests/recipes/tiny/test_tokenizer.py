"""The tokenizer: nothing is lost, and a chat reads as training wrote it."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from monitor.recipes.tiny.tokenizer import as_training_text


@pytest.mark.parametrize(
    "text", ["plain words", "  tabs\t\r\n\n  ", "日本語 🦊 é̀", "".join(map(chr, range(256))), ""]
)
def test_gives_every_text_back(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids) == text


def test_begins_once_in_plain_text_and_in_a_chat(tokenizer: PreTrainedTokenizerFast) -> None:
    begin = tokenizer.bos_token_id
    assert tokenizer("hello").input_ids.count(begin) == 1
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "<|begin|>Be brief.\n\nHuman: Hello\n\nAssistant:"
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert ids[0] == begin
    assert ids.count(begin) == 1
    assert tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"] == ids


def test_a_chat_is_written_as_training_writes_it(tokenizer: PreTrainedTokenizerFast) -> None:
    turns = [("user", "A"), ("assistant", "B"), ("user", "C"), ("assistant", "D")]
    messages = [{"role": role, "content": content} for role, content in turns]
    trained = as_training_text("Human: A\n\nAssistant: B\n\nHuman: C\n\nAssistant: D\n\nHuman: unanswered")
    assert tokenizer.apply_chat_template(messages, tokenize=False) == "<|begin|>" + trained


def test_loads_as_a_fast_tokenizer(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.is_fast
    assert (loaded.bos_token, loaded.eos_token, loaded.pad_token) == ("<|begin|>", "<|end|>", "<|pad|>")
    assert loaded("Hello 12").input_ids == tokenizer("Hello 12").input_ids


@pytest.mark.parametrize(
    ("text", "trained"),
    [
        ("plain", "plain<|end|>"),
        ("  a\n\nHuman: b ", "a\n\nHuman: b<|end|>"),
        ("Human: a\n\nAssistant: b", "Human: a\n\nAssistant: b<|end|>"),
        (
            "Human: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d",
            "Human: a\n\nAssistant: b<|end|>\n\nHuman: c\n\nAssistant: d<|end|>",
        ),
        ("Human: a\n\nAssistant: b\n\nHuman: c", "Human: a\n\nAssistant: b<|end|>"),
    ],
)
def test_every_answer_ends_and_a_turn_without_one_is_dropped(text: str, trained: str) -> None:
    assert as_training_text(text) == trained


def test_a_role_that_is_none_is_an_error(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(Exception, match="roles are system, user and assistant, not tool"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


def test_digits_stand_alone_and_words_keep_their_space(tokenizer: PreTrainedTokenizerFast) -> None:
    pieces = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("It's 42 words.\n\n  x")
    assert [piece.replace("Ġ", " ").replace("Ċ", "\n") for piece, _ in pieces] == [
        "It",
        "'s",
        " ",
        "4",
        "2",
        " words",
        ".",
        "\n\n",
        " ",
        " x",
    ]
