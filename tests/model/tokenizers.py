"""Tokenizers of every kind that can be built without a network, and chat templates of the kinds that models have.

Not here, because it needs files or packages that are not installed: SentencePiece models in Python (GPT-SW3), Mistral's
own tokenizer.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer, WordPieceTrainer
from transformers import ByT5Tokenizer, CTRLTokenizer, PreTrainedTokenizer, PreTrainedTokenizerFast

SPECIAL = (
    "<s>",
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "[INST]",
    "[/INST]",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|end|>",
    "<｜User｜>",
    "<｜Assistant｜>",
)
MARKERS = ("<think>", "</think>", "<tool_call>")
"""Added, and not special, as Qwen's are."""
WORDS = ("\n\n", "   ", "covid")
"""Added, and ordinary text."""
CORPUS = [
    "the quick brown fox jumps over the lazy dog. Human: hello there! Assistant: I am fine, thank you.\n\nuser system",
    "def f(x):\n    return [x, {1: 2}]  # 0123456789 <a|b> ~!@#$%^&*()_+-=;':\",./?\\`",
    "ASSISTANT: yes. USER: no. ### Instruction:\ndo\n\n### Response:\n/INST <<SYS>> <|assistant!>",
    "Straße, café, naïve, Ωmega, привет, 漢字, 🙂",
] * 4


def _fast(core: Tokenizer, *, bos: bool = True, wraps: bool = True, **named: Any) -> PreTrainedTokenizerFast:
    core.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in SPECIAL])
    core.add_tokens([AddedToken(text, normalized=False, special=False) for text in (*MARKERS, *WORDS)])
    if wraps:
        first = core.token_to_id("<s>")
        core.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", first)])
    named = {"eos_token": "</s>", **({"bos_token": "<s>"} if bos else {}), **named}
    return PreTrainedTokenizerFast(tokenizer_object=core, **named)


def _trained(core: Tokenizer, alphabet: list[str], *special: str) -> Tokenizer:
    core.train_from_iterator(
        CORPUS,
        BpeTrainer(
            vocab_size=600, initial_alphabet=alphabet, special_tokens=list(special), show_progress=False
        ),
    )
    spec = json.loads(core.to_str())
    spec["added_tokens"] = []
    return Tokenizer.from_str(json.dumps(spec))


def byte_level(*, prefix: bool = False) -> PreTrainedTokenizerFast:
    """As GPT-2, Llama 3 and Qwen; with `prefix` as RoBERTa."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    core.decoder = decoders.ByteLevel()
    return _fast(_trained(core, pre_tokenizers.ByteLevel.alphabet()))


def no_bos() -> PreTrainedTokenizerFast:
    """As SmolLM2: BOS is named, opens every turn and is put before no text; token 0 is unknown and never written."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core = _trained(core, pre_tokenizers.ByteLevel.alphabet(), "<|endoftext|>", "<|im_start|>", "<|im_end|>")
    core.add_special_tokens([AddedToken("<|endoftext|>", normalized=False, special=True)])
    named = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>"}
    return _fast(core, wraps=False, **named)


def _pieces(*, fallback: bool) -> dict[str, int]:
    bytes_ = [f"<0x{value:02X}>" for value in range(256)] if fallback else []
    letters = sorted({character for text in CORPUS for character in text if not character.isspace()} - {"🙂"})
    words = ["▁the", "▁quick", "▁hello", "▁H", "uman", "er", "us", "user", "Human", "in", "th", "he"]
    return {
        piece: number
        for number, piece in enumerate(
            dict.fromkeys(["<unk>", "<s>", "</s>", *bytes_, "▁", *letters, *words])
        )
    }


_MERGES = [("t", "h"), ("h", "e"), ("e", "r"), ("i", "n"), ("u", "s"), ("us", "er"), ("▁", "H")]


def pieces(scheme: str) -> PreTrainedTokenizerFast:
    """As Llama 2, Mistral and Gemma: `▁` is a space, unknown characters are bytes. `scheme`: how a text begins."""
    core = Tokenizer(
        models.BPE(
            vocab=_pieces(fallback=True), merges=_MERGES, byte_fallback=True, unk_token="<unk>", fuse_unk=True
        )
    )
    if scheme == "prepend":
        core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    elif scheme == "replace":
        core.normalizer = normalizers.Replace(" ", "▁")
    else:
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    core.decoder = decoders.Sequence(parts if scheme == "replace" else [*parts, decoders.Strip(" ", 1, 0)])
    return _fast(core, unk_token="<unk>")


def unigram(*, fallback: bool) -> PreTrainedTokenizerFast:
    """As T5 and XGLM: control tokens stand in the vocabulary with the best of scores, and NFKC makes them of others."""
    vocabulary = [
        (piece, 0.0 if piece.startswith("<") else -3.0 - len(piece) / 100)
        for piece in _pieces(fallback=fallback)
    ]
    core = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=fallback))
    core.normalizer = normalizers.NFKC()
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    parts = [decoders.ByteFallback()] if fallback else []
    core.decoder = decoders.Sequence([*parts, decoders.Metaspace()])
    return _fast(core, unk_token="<unk>")


def word_pieces() -> PreTrainedTokenizerFast:
    """As BERT: lower case, no accents."""
    core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.train_from_iterator(
        CORPUS, WordPieceTrainer(vocab_size=400, special_tokens=["[UNK]"], show_progress=False)
    )
    core.decoder = decoders.WordPiece()
    return _fast(core, unk_token="[UNK]")


def word_level() -> PreTrainedTokenizerFast:
    """Whole words, among them the control tokens."""
    words = ["[UNK]", *SPECIAL, *MARKERS, "hello", "user", "the", ":", "\n"]
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, "[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s+"), "removed")
    return _fast(core, unk_token="[UNK]")


def letters_alone() -> PreTrainedTokenizerFast:
    """Letters and digits; what else there is, is dropped. Its normaliser takes away what cannot be seen."""
    known = [chr(code) for code in range(33, 127)]
    core = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(known)}, merges=[]))
    core.normalizer = normalizers.Replace(Regex("[\u200b\u200d\ufeff]"), "")
    core.decoder = decoders.Fuse()
    return _fast(core)


class Letters(PreTrainedTokenizer):
    """A tokenizer in Python that knows ASCII letters, one token each."""

    def __init__(self, **named: Any) -> None:
        self._letters = {"<unk>": 0, **{chr(code): code - 8 for code in range(9, 127)}}
        super().__init__(unk_token="<unk>", bos_token="<s>", eos_token="</s>", **named)
        self.special_tokens_pattern = "bos"

    @property
    def vocab_size(self) -> int:
        return len(self._letters)

    def get_vocab(self) -> dict[str, int]:
        return {**self._letters, **self.added_tokens_encoder}

    def _tokenize(self, text: str, **named: Any) -> list[str]:
        return list(text)

    def _convert_token_to_id(self, token: str) -> int:
        return self._letters.get(token, 0)

    def _convert_id_to_token(self, index: int) -> str:
        return chr(index + 8) if 0 < index < len(self._letters) else "<unk>"

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return "".join(tokens)


def in_python() -> PreTrainedTokenizer:
    """A tokenizer in Python."""
    return _added(Letters())


def bytes_in_python() -> PreTrainedTokenizer:
    """Bytes, in Python."""
    return _added(ByT5Tokenizer(extra_ids=0, bos_token="<s>"))


def ctrl(folder: Path) -> PreTrainedTokenizer:
    """CTRL: pieces of words, in Python."""
    letters = sorted({character for text in CORPUS for character in text if not character.isspace()})
    pieces = ["<unk>", *letters, *(f"{letter}@@" for letter in letters), "the", "hello@@", "h@@ello"]
    pieces += ["th@@", "the@@"]
    (folder / "vocab.json").write_text(
        json.dumps({piece: number for number, piece in enumerate(dict.fromkeys(pieces))})
    )
    (folder / "merges.txt").write_text("#version: 0.2\nt h\nth e</w>\n")
    return _added(CTRLTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")))


def _added(slow: PreTrainedTokenizer) -> PreTrainedTokenizer:
    slow.add_special_tokens(
        {"additional_special_tokens": list(SPECIAL)}
        if "additional_special_tokens" in slow.SPECIAL_TOKENS_ATTRIBUTES
        else {"extra_special_tokens": list(SPECIAL)}
    )
    slow.add_tokens([AddedToken(text, special=False) for text in MARKERS])
    return slow


KINDS: dict[str, Callable[[], Any]] = {
    "byte-level": byte_level,
    "byte-level with a space": lambda: byte_level(prefix=True),
    "byte-level without BOS": no_bos,
    "pieces, first": lambda: pieces("first"),
    "pieces, always": lambda: pieces("always"),
    "pieces, prepended": lambda: pieces("prepend"),
    "pieces, no space": lambda: pieces("replace"),
    "unigram": lambda: unigram(fallback=False),
    "unigram and bytes": lambda: unigram(fallback=True),
    "word pieces": word_pieces,
    "words": word_level,
    "letters": letters_alone,
    "Python": in_python,
    "Python, bytes": bytes_in_python,
}


def built(kind: str) -> Any:
    """A tokenizer of its own for every caller: whoever sets its template sets nobody else's."""
    return KINDS[kind]()


_EACH = "{% for m in messages %}"
TEMPLATES = {
    "chatml": _EACH
    + "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "chatml with a system turn of its own": "{% if messages[0].role != 'system' %}"
    + "<|im_start|>system\nBe of help.<|im_end|>\n{% endif %}"
    + _EACH
    + "<|im_start|>{{ m['role'] + '\n' + m['content'] }}<|im_end|>\n{% endfor %}"
    + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "llama 3": "<s>"
    + _EACH
    + "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>{% endfor %}"
    + "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
    "gemma": "<s>"
    + _EACH
    + "{% if m.role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}"
    + "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
    + "{% endfor %}"
    + "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
    "mistral": "<s>"
    + _EACH
    + "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('take turns') }}{% endif %}"
    + "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}</s>{% endif %}{% endfor %}",
    "qwen 3": _EACH
    + "{% set said = m.content %}{% if m.role == 'assistant' and '</think>' in said %}"
    + "{% set said = said.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    + "<|im_start|>{{ m.role }}\n{{ said }}<|im_end|>\n{% endfor %}"
    + "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n\n</think>\n\n{% endif %}",
    "phi": _EACH
    + "<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    + "{% if add_generation_prompt %}<|assistant|>\n{% else %}</s>{% endif %}",
    "deepseek": "<s>"
    + _EACH
    + "{% if m.role == 'user' %}<｜User｜>{{ m.content }}{% elif m.role == 'assistant' %}"
    + "<｜Assistant｜>{{ m.content }}</s>"
    + "{% else %}{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<｜Assistant｜>{% endif %}",
    "plain": "{{ bos_token }}"
    + _EACH
    + "{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}",
    "plain, in lines": _EACH
    + "{% if not loop.first %}\n\n{% endif %}"
    + "{{ {'user': 'Human', 'assistant': 'Assistant', 'system': 'Note'}[m.role] }}: "
    + "{{ m.content }}{{ eos_token if m.role == 'assistant' }}{% endfor %}"
    + "{% if add_generation_prompt %}\n\nAssistant:{% endif %}",
    "parts": _EACH
    + "<|im_start|>{{ m.role }}\n{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}"
    + "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "as json": _EACH
    + "<|im_start|>{{ {'from': m.role, 'text': m.content} | tojson }}<|im_end|>\n{% endfor %}"
    + "{% if add_generation_prompt %}<|im_start|>{% endif %}",
}
"""Written for these tests after the kinds that model families use."""
