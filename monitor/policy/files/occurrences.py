"""How a text occurs before a model: as what a user asks, as what the model answers, as both, or as a text by itself.

A detector meets texts inside of conversations that a chat template renders, so it is learnt from texts that stand where
they will stand. A model without a chat template reads plain texts, in serving and in fitting alike.
"""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Mapping
from itertools import pairwise

Document = str | tuple[Mapping[str, str], ...]
"""A text by itself, or the turns of a conversation as `{"role": …, "content": …}`. What is judged is the text; of a
conversation that ends in an answer that answer, and otherwise all of it."""

ASKED, ANSWERED = "Human: ", "Assistant:"
"""How written dialogues name who speaks."""
QUESTIONS = (
    "What do you say?",
    "Go on.",
    "Tell me more.",
    "What would you do?",
    "Please continue.",
    "What do you think?",
    "Write what comes to your mind.",
    "And then?",
)
"""What a user asks before an answer whose question is not given. None of them is about anything."""
_SPEAKER = re.compile(r"\n\n(?=Human:|Assistant:)")


class Kind(enum.StrEnum):
    """Where a text occurs."""

    REQUEST = "request"
    """A user's turn."""
    RESPONSE = "response"
    """The model's turn, behind one of a user."""
    STATEMENT = "statement"
    """Either of the two, so it is read twice: once as each."""
    TEXT = "text"
    """By itself, without a chat template around it."""


_KINDS = {"request": Kind.REQUEST, "prompt": Kind.REQUEST, "response": Kind.RESPONSE, "text": Kind.TEXT}


def kind_called(word: str) -> Kind:
    """The kind that a labelled file calls a row: `prompt` is a request; what is neither is a statement."""
    return _KINDS.get(word.strip().lower(), Kind.STATEMENT)


def occurrences(text: str, kind: Kind, *, turns: bool) -> tuple[Document, ...]:
    """A text as a model meets it, once or for a statement twice; `turns` where the model has a chat template.

    A text that is written as a dialogue (`Human: …`, a blank line, `Assistant: …`) is that conversation, of whatever
    kind it is.
    """
    if not turns or kind is Kind.TEXT:
        return (text,)
    if dialogue := dialogue_of(text):
        return (dialogue,)
    found = {Kind.REQUEST: (_asked(text),), Kind.RESPONSE: (_said(text),)}
    return found.get(kind, (_asked(text), _said(text)))


def one_occurrence(text: str, kind: Kind, *, turns: bool) -> Document:
    """One of the `occurrences` of a text: of a statement as good as at random, and always the same one."""
    found = occurrences(text, kind, turns=turns)
    return found[_drawn(text, len(found))]


def dialogue_of(text: str) -> tuple[Mapping[str, str], ...]:
    """The turns of a written dialogue; none where the text is not one that begins with the user."""
    if not text.startswith(ASKED):
        return ()
    parts = _SPEAKER.split(text)
    found = []
    for part in parts:
        role, name = ("user", ASKED.strip()) if part.startswith(ASKED.strip()) else ("assistant", ANSWERED)
        if said := part.removeprefix(name).strip():
            found.append({"role": role, "content": said})
    alternating = all(one["role"] != other["role"] for one, other in pairwise(found))
    return tuple(found) if found and found[0]["role"] == "user" and alternating else ()


def plain(document: Document) -> str:
    """A document as one text, without the questions that were put before an answer for want of its own."""
    if isinstance(document, str):
        return document
    turns = document[1:] if len(document) > 1 and document[0]["content"] in QUESTIONS else document
    return "\n\n".join(turn["content"] for turn in turns)


def answers(document: Document) -> bool:
    """True where what is judged is an answer of the model."""
    return not isinstance(document, str) and document[-1]["role"] == "assistant"


def _asked(text: str) -> Document:
    return ({"role": "user", "content": text},)


def _said(text: str) -> Document:
    question = QUESTIONS[_drawn(text, len(QUESTIONS))]
    return ({"role": "user", "content": question}, {"role": "assistant", "content": text})


def _drawn(text: str, count: int) -> int:
    return hashlib.sha256(text.encode()).digest()[0] % count
