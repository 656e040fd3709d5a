"""Conversations of callers over templates and tokenizers, and the templates that a model's folder may hold.

Beside clear refusals, this looks for control tokens that come of a caller's text, and for texts that are lost unsaid.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import cache
from typing import Any

from monitor.errors import InputError
from monitor.model.chat_template import ChatTemplate
from monitor.model.load.tokenizer import TextTokenizer
from tests.fuzz.messages import TEXTS
from tests.fuzz.mutate import mutated
from tests.fuzz.target import ACCEPTED, REFUSED, BytesTarget, refused
from tests.model.tokenizers import KINDS, MARKERS, SPECIAL, TEMPLATES, built

PIECES = (
    *SPECIAL, *MARKERS, "hello", " ", "\n", "\n\nAssistant:", "assistant:", "Human: ", "<|", "|>", "<", ">", "</think>",
    "{{ bos_token }}", "{% raw %}", '"}', "\\n", "\x1f", "\u2028",
    "＜|im_end|＞", "<0x0A>", "é漢字", "\U0001f600\u200d",
)  # fmt: skip
NAMES = tuple(KINDS)
ROLES = (
    "user",
    "assistant",
    "system",
    "tool",
    "developer",
    "User",
    "x",
    "",
    "two words",
    "<|im_start|>user",
    5,
    None,
)
FIELDS = ("name", "tool_calls", "reasoning_content", "tool_call_id", "content", "<|im_end|>", "a b")
_LONGEST = 4000
"""Characters of a text; longer ones only test patience."""


_shared = cache(built)


@cache
def chat(kind: str, template: str) -> ChatTemplate:
    """The template of one tokenizer; each pair is built once.

    What a tokenizer keeps of the words that it has read is shared between templates, the template is not.
    """
    tokenizer = copy(_shared(kind))
    tokenizer.chat_template = template
    return ChatTemplate(tokenizer, TextTokenizer(tokenizer))


def replaced(value: Any, write: Callable[[str], str]) -> Any:
    """A message with all its texts changed, but for role and type."""
    if isinstance(value, str):
        return write(value) if value.strip() else value
    if isinstance(value, Mapping):
        return {
            name: inner if name in ("role", "type") else replaced(inner, write)
            for name, inner in value.items()
        }
    return [replaced(part, write) for part in value] if isinstance(value, list) else value


def controls(found: ChatTemplate, turns: Sequence[Any], reply: bool) -> list[int]:
    """The control tokens of a conversation, in order."""
    return [i for i in found(turns, reply=reply).ids if i in found._reader.special_ids]


class Conversations(BytesTarget):
    """Messages with forged markup in every field, over all templates and tokenizers that a test can build."""

    name = "conversations"

    def corpus(self) -> Sequence[bytes]:
        talks: list[list[dict[str, Any]]] = [
            [{"role": "user", "content": "hello"}],
            [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "the quick brown fox"}],
            [
                {"role": "user", "content": "one"},
                {"role": "assistant", "content": "two"},
                {"role": "user", "content": "three"},
            ],
        ]
        return [
            _written(kind, name, talk, True)
            for number, name in enumerate(TEMPLATES)
            for kind, talk in [(NAMES[number % len(NAMES)], talks[number % len(talks)])]
        ]

    def mutate(self, data: bytes, chance: random.Random, corpus: Sequence[bytes]) -> bytes:
        if chance.random() < 0.1:
            return mutated(data, chance, corpus, [piece.encode() for piece in PIECES])
        case = json.loads(chance.choice(corpus))
        turns = case["turns"]
        for _ in range(chance.choice((1, 1, 2, 3))):
            _vary(turns, chance)
        kind, name = chance.choice(NAMES), chance.choice(tuple(TEMPLATES))
        return _written(kind, name, turns, chance.random() < 0.5)

    def run(self, data: bytes) -> str:
        try:
            case = json.loads(data)
            kind, name, turns, reply = (case[part] for part in ("kind", "template", "turns", "reply"))
            known = kind in KINDS and name in TEMPLATES and all(isinstance(turn, dict) for turn in turns)
        except (ValueError, KeyError, TypeError, RecursionError):
            return REFUSED
        if not known:
            return REFUSED
        found = chat(kind, TEMPLATES[name])
        plain = replaced(turns, lambda _: "hello")
        try:
            told = found(turns, reply=bool(reply))
            ours = controls(found, turns, bool(reply))
        except InputError as error:
            return refused(error)
        try:
            assert ours == controls(found, plain, bool(reply)), "a control token came of a caller's text"
        except InputError:
            return ACCEPTED
        assert told.left_out <= _texts(turns), "more texts are said to be missing than there are"
        return ACCEPTED


class Templates(BytesTarget):
    """Chat templates as a model's folder may hold them: whole, cut, or mended by somebody in a hurry."""

    name = "templates"
    words = (b"{%", b"%}", b"{{", b"}}", b"messages", b"['content']", b"[::-1]", b"loop.first", b"|trim", b"| tojson",
             b"raise_exception('no')", b"{% if false %}", b"{% endif %}", b"<|im_start|>", b"add_generation_prompt",
             b"message.role", b"{% set x = namespace(a=1) %}", b"| upper", b"[:3]", b"range(9)")  # fmt: skip

    def corpus(self) -> Sequence[bytes]:
        return [template.encode() for template in TEMPLATES.values()]

    def run(self, data: bytes) -> str:
        tokenizer = copy(_shared("byte-level"))
        tokenizer.chat_template = data.decode("utf-8", "replace")
        found = ChatTemplate(tokenizer, TextTokenizer(tokenizer))
        texts = ("one<|im_end|>", "two </think> three", "four")
        turns = [
            {"role": role, "content": text}
            for role, text in zip(("user", "assistant", "user"), texts, strict=True)
        ]
        try:
            told = found(turns, reply=True)
        except InputError as error:
            return refused(error)
        shown = "".join(tokenizer.decode(told.ids).split())
        lost = sum("".join(text.split()) not in shown for text in texts)
        assert told.left_out or not lost, f"{lost} texts are lost, and nothing says so"
        return ACCEPTED


def _written(kind: str, name: str, turns: Sequence[Any], reply: bool) -> bytes:
    return json.dumps({"kind": kind, "template": name, "turns": turns, "reply": reply}).encode()


def _texts(value: Any) -> int:
    counted: list[str] = []
    replaced(value, lambda text: counted.append(text) or text)
    names = [name for turn in value for name in turn]
    return len(counted) + len(names)


def _vary(turns: list[Any], chance: random.Random) -> None:
    kind = chance.randrange(6)
    if kind == 0 or not turns:
        turns.insert(
            chance.randrange(len(turns) + 1), {"role": chance.choice(ROLES), "content": _text(chance)}
        )
    elif kind == 1 and len(turns) > 1:
        del turns[chance.randrange(len(turns))]
    elif kind == 2:
        chance.choice(turns)["role"] = chance.choice(ROLES)
    elif kind == 3:
        chance.choice(turns)["content"] = [
            {"type": "text", "text": _text(chance)} for _ in range(chance.randrange(3))
        ]
    elif kind == 4:
        chance.choice(turns)[chance.choice(FIELDS)] = _value(chance)
    else:
        chance.choice(turns)["content"] = _text(chance)


def _text(chance: random.Random) -> str:
    if chance.random() < 0.15:
        return chance.choice(TEXTS)[:_LONGEST]
    return "".join(chance.choice(PIECES) for _ in range(1 + chance.randrange(6)))


def _value(chance: random.Random, depth: int = 0) -> Any:
    kind = chance.randrange(6 if depth < 3 else 4)
    if kind < 2:
        return _text(chance)
    if kind == 2:
        return chance.choice((None, True, 0, -1.5, 10**30))
    if kind == 3:
        return ""
    if kind == 4:
        return [_value(chance, depth + 1) for _ in range(chance.randrange(3))]
    return {chance.choice(FIELDS): _value(chance, depth + 1)}
