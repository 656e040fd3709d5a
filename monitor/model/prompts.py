"""Tokenise what callers send: a text, or a conversation through the model's chat template.

Prompts begin with the tokenizer's BOS token where it has one, and are checked against the model's context length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from monitor.errors import BadRequest, TooLong, Violation
from monitor.model.load.model import LoadedModel

Content = str | Sequence[Mapping[str, str]]
"""A text, or the turns of a conversation as `{"role": …, "content": …}`."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A tokenised prompt: token ids, with BOS first where the model has one."""

    ids: tuple[int, ...]
    truncated: int = 0
    """Tokens that were dropped from the front so that the rest fits the context."""


class Prompter:
    """Turns texts and conversations into prompts for one model."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._tokenizer: Any = loaded.tokenizer
        self._context = loaded.context
        self._reader = loaded.text

    def __call__(self, content: Content, *, truncate: bool, room: int, reply: bool) -> Prompt:
        """Token ids of a text, or of a conversation through the model's own chat template.

        Args:
            content: a text, or turns as `{"role": …, "content": …}`.
            truncate: drop tokens from the front (after BOS) where the prompt is too long, instead of refusing it.
            room: number of tokens in the context to keep free for the response.
            reply: end with the header of the assistant's message (conversations only).

        Raises:
            BadRequest: the content is empty, or the chat template refuses it. Field names are relative to `Input`.
            TooLong: the prompt does not fit and `truncate` is False.
        """
        if isinstance(content, str):
            return self._fit(self._text(content), truncate, room, "text")
        return self._fit(self._chat(content, reply), truncate, room, "conversation")

    def _text(self, text: str) -> list[int]:
        if not text.strip():
            raise BadRequest(
                Violation("text", "is empty; give at least one character that is not white space")
            )
        return self._reader.ids(text)

    def _chat(self, turns: Sequence[Mapping[str, str]], reply: bool) -> list[int]:
        field = "conversation.messages"
        if not any(turn["content"].strip() for turn in turns):
            raise BadRequest(Violation(field, "hold no text; give at least one message that is not empty"))
        if self._tokenizer.chat_template is None:
            raise BadRequest(
                Violation("conversation", "this model has no chat template; send plain text in `text`")
            )
        try:
            # The template writes BOS itself: tokenising with special tokens again would give two.
            rendered = self._tokenizer.apply_chat_template(
                [dict(turn) for turn in turns], tokenize=False, add_generation_prompt=reply
            )
        except (TemplateError, ValueError) as error:
            raise BadRequest(Violation(field, f"the model's chat template refuses them: {error}")) from None
        return list(self._tokenizer(rendered, add_special_tokens=False)["input_ids"])

    def _fit(self, ids: list[int], truncate: bool, room: int, field: str) -> Prompt:
        limit = self._context - room
        if limit < 2:
            raise BadRequest(
                Violation(
                    "sampling.max_new_tokens", f"{room} leaves no room in a context of {self._context} tokens"
                )
            )
        extra = len(ids) - limit
        if extra <= 0:
            return Prompt(tuple(ids))
        if not truncate:
            kept = f" less {room} for the response" if room else ""
            raise TooLong(
                Violation(
                    field,
                    f"is {len(ids)} tokens long; the context holds {self._context}{kept}. Shorten it or set `truncate` "
                    "to drop tokens from the front",
                )
            )
        begin = list(self._reader.begin)
        head = begin if ids[: len(begin)] == begin else []
        return Prompt((*head, *ids[len(head) + extra :]), extra)
