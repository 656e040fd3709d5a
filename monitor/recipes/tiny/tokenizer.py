"""The bundled model's own byte-level BPE tokenizer and its chat format.

A document is `<|begin|>` + text + `<|end|>`. In a dialogue (`Human: …`, blank line, `Assistant: …`) every Assistant
turn ends with `<|end|>`, so that generation stops there by itself.
"""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

BEGIN, END, PAD = "<|begin|>", "<|end|>", "<|pad|>"

CHAT_TEMPLATE = (
    "{{- bos_token -}}"
    "{%- for message in messages -%}"
    "{%- if not loop.first -%}{{- '\n\n' -}}{%- endif -%}"
    "{%- if message['role'] == 'user' -%}{{- 'Human: ' + message['content'] -}}"
    "{%- elif message['role'] == 'assistant' -%}{{- 'Assistant: ' + message['content'] + eos_token -}}"
    "{%- elif message['role'] == 'system' -%}{{- message['content'] -}}"
    "{%- else -%}{{- raise_exception('roles are system, user and assistant, not ' + message['role']) -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '\n\nAssistant:' -}}{%- endif -%}"
)

_PIECES = (
    r"'(?:s|t|d|m|ll|ve|re)(?!\p{L})"  # English contractions
    r"| ?\p{L}+"  # words, with the space before them
    r"|\p{N}"  # one digit at a time
    r"| ?[^\s\p{L}\p{N}]+"  # runs of punctuation
    r"|\s*\n"  # line ends, with the blank lines before them
    r"|\s+(?!\S)|\s+"  # indentation, leaving the last space to the word
)
_TURN = "\n\nHuman:"


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Learns a BPE vocabulary of `vocabulary` entries (bytes and special tokens included) from texts."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BEGIN, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A",
        pair=f"{BEGIN} $A {BEGIN} $B",
        special_tokens=[(BEGIN, backend.token_to_id(BEGIN))],
    )
    return _wrap(backend)


def _wrap(backend: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        padding_side="left",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Reads a saved tokenizer."""
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder)
    return tokenizer


def as_training_text(text: str) -> str:
    """A document as the model reads it, without the begin token: ends of turns marked, an unanswered turn dropped."""
    turns = text.strip().split(_TURN)
    if "\n\nAssistant:" not in turns[0]:
        return text.strip() + END
    while "\n\nAssistant:" not in turns[-1]:
        turns.pop()
    return (END + _TURN).join(turns) + END


def encode_documents(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    """Token ids of whole documents, each from begin to end token."""
    pieces = [as_training_text(text) for text in texts]
    return [encoding.ids for encoding in tokenizer.backend_tokenizer.encode_batch_fast(pieces)]
