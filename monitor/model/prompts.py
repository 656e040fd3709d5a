"""Prompts: what callers send, a text or a conversation, as token ids that fit the model's context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import groupby, takewhile
from typing import Any

from monitor.errors import BadRequest, InputError, TooLong, Violation
from monitor.model.chat_template import ChatTemplate, Rendered
from monitor.model.load.model import LoadedModel

Content = str | Sequence[Mapping[str, Any]]
"""A text, or the turns of a conversation as `{"role": …, "content": …}`."""


TOOL = "tool"
"""Role of what a tool returned, which not every chat template knows."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A tokenised prompt. It begins as the model's tokenizer begins a text, or as its template a conversation."""

    ids: tuple[int, ...]
    truncated: int = 0
    """Tokens that were dropped from the front so that the rest fits the context."""
    left_out: int = 0
    """Texts of the conversation that are not in it, because the chat template or the tokenizer drops them."""


@dataclass(frozen=True, slots=True)
class PlacedText:
    """A document as a server runs it: the tokens, and which of them are judged together."""

    ids: tuple[int, ...]
    begin: int = 0
    """The first token of what is judged: of an answer its first, otherwise the first of all."""
    lead: int = 0
    """How many tokens, from `begin` on, the chat template writes before what anybody said."""


class DocumentReader:
    """Turns documents, texts and conversations, into token ids as one model is to read them; see `Prompter`.

    A template that writes the date writes that on which the reader was made, so that all documents are read alike.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._at = datetime.now()
        self._text, self._template = loaded.text, ChatTemplate(loaded.tokenizer, loaded.text)
        self.takes_turns = loaded.tokenizer.chat_template is not None
        """Whether the model has a chat template, so that conversations can be read."""
        self.left_out = 0
        """Texts of the conversations read so far that are not in what was read; see `Prompt.left_out`."""

    def __call__(self, documents: Sequence[str | Sequence[Mapping[str, str]]]) -> list[list[int]]:
        """Token ids of each. Raises InputError for a conversation that the model's chat template does not take.

        Texts that the template or the tokenizer leaves out are counted, for whoever reads a corpus to tell.
        """
        texts = iter(self._text.batch([found for found in documents if isinstance(found, str)]))
        begin = self._text.begin
        return [
            [*begin, *next(texts)] if isinstance(found, str) else self._turns(found) for found in documents
        ]

    def placed(self, document: str | Sequence[Mapping[str, str]]) -> PlacedText:
        """A document as a server that generates runs it.

        Raises InputError as calling the reader does, and for a conversation of which the template drops a text: what is
        read of it would be taken for what it says.

        A text stands alone. A conversation that ends with a user's turn is a prompt, closed by the header of the
        answer to come. One that ends with an answer is its prompt and then that answer, up to what ends its turn.
        """
        if isinstance(document, str):
            return PlacedText(tuple(self._text.ids(document)))
        asking = document[:-1] if document[-1]["role"] == "assistant" else document
        self._need_turns()
        prompt = self._whole(asking, reply=True) if asking else ()
        if asking is document:
            return PlacedText(prompt, 0, min(_alike(prompt, self._opening), len(prompt)))
        whole = self._whole(document, reply=False)
        begin = _alike(prompt, whole)
        ends = (at for at in range(begin, len(whole)) if whole[at] in self._text.special_ids)
        return PlacedText(whole[: next(ends, len(whole))], begin)

    def _whole(self, turns: Sequence[Mapping[str, str]], *, reply: bool) -> tuple[int, ...]:
        """Token ids of a conversation that the template writes with all its texts; InputError where it drops one."""
        rendered = self._template(turns, reply=reply, at=self._at)
        if rendered.left_out:
            raise InputError(
                f"a conversation of the roles {', '.join(turn['role'] for turn in turns)} has a text that this model's "
                "chat template or its tokenizer leaves out; leave it out of the conversation, or give a plain text"
            )
        return rendered.ids

    @cached_property
    def _opening(self) -> tuple[int, ...]:
        """What every conversation begins with that opens with a user's turn."""
        one, other = (
            self._template([{"role": "user", "content": word}], reply=False, at=self._at).ids for word in "aZ"
        )
        return one[: _alike(one, other)]

    def _turns(self, turns: Sequence[Mapping[str, str]]) -> list[int]:
        self._need_turns()
        found = self._template(turns, reply=False, at=self._at)
        self.left_out += found.left_out
        return list(found.ids)

    def _need_turns(self) -> None:
        if not self.takes_turns:
            raise InputError("there are conversations, and this model has no chat template; give plain texts")


def not_read(texts: int) -> str:
    """Says that texts of conversations are not in what was read."""
    return f"{texts:,} texts of conversations not read: the model's chat template or its tokenizer leaves them out"


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _of_callers(turns: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The conversation with what tools returned as turns of the caller; neighbours of one role become one turn."""
    roles = [("user" if turn.get("role") == TOOL else turn.get("role"), turn) for turn in turns]
    return [
        {"role": role, "content": "\n\n".join(str(turn.get("content") or "") for _, turn in same)}
        for role, same in groupby(roles, key=lambda pair: pair[0])
    ]


class Prompter:
    """Turns texts and conversations into prompts for one model."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded, self._text = loaded, loaded.text
        self._template = ChatTemplate(loaded.tokenizer, loaded.text)

    @property
    def opening(self) -> str | None:
        """What the chat template writes before a first message of the user; None where there is no chat template.

        Many templates write a system message of their own there. It is part of what runs in serving and in training,
        and no policy is told of it otherwise.
        """
        if self._loaded.tokenizer.chat_template is None:
            return None
        try:
            return self._template.opening
        except InputError:  # it takes no conversation that begins so
            return ""

    def __call__(
        self, content: Content, *, truncate: bool, room: int, reply: bool, at: datetime | None = None
    ) -> Prompt:
        """Token ids of a text, or of a conversation through the model's own chat template.

        Args:
            content: a text, or turns as `{"role": …, "content": …}`.
            truncate: drop tokens from the front (after BOS) where the prompt is too long, instead of refusing it.
            room: number of tokens in the context to keep free for the response.
            reply: end with the header of the assistant's message (conversations only).
            at: the local time that a chat template writes which writes the date; by default now.

        Raises:
            BadRequest: nothing is left to run, the chat template refuses the content, or the model has no embedding for
                one of its tokens. Field names are relative to `Input`.
            TooLong: the prompt does not fit and `truncate` is False.
        """
        field = "text" if isinstance(content, str) else "conversation.messages"
        try:
            prompt = (
                self._of_text(content)
                if isinstance(content, str)
                else self._of_turns(content, reply, at or datetime.now())
            )
            self._loaded.check_ids(prompt.ids)
        except InputError as error:
            raise BadRequest(Violation(field, str(error))) from None
        except BadRequest as error:
            raise BadRequest(*(Violation(field, found.description) for found in error.violations)) from None
        return self._fit(prompt, truncate, room, field.split(".", 1)[0])

    def _of_text(self, text: str) -> Prompt:
        if not text.strip():
            raise InputError("is empty; give at least one character that is not white space")
        if not (ids := self._text.inner(text)):
            raise InputError("holds nothing that this model's tokenizer keeps; write other characters")
        return Prompt((*self._text.begin, *ids))

    def _of_turns(self, turns: Sequence[Mapping[str, Any]], reply: bool, at: datetime) -> Prompt:
        if not any(str(turn.get("content") or "").strip() for turn in turns):
            raise InputError("hold no text; give at least one message that is not empty")
        if self._loaded.tokenizer.chat_template is None:
            raise InputError("are sent to a model that has no chat template; send plain text in `text`")
        rendered = self._rendered(turns, reply, at)
        return Prompt(rendered.ids, left_out=rendered.left_out)

    def _rendered(self, turns: Sequence[Mapping[str, Any]], reply: bool, at: datetime) -> Rendered:
        """A conversation through the template; what tools returned as the caller's, where it has no role for tools."""
        if all(turn.get("role") != TOOL for turn in turns):
            return self._template(turns, reply=reply, at=at)
        try:
            found = self._template(turns, reply=reply, at=at)
        except InputError:
            return self._template(_of_callers(turns), reply=reply, at=at)
        if not found.left_out:
            return found
        with suppress(InputError):
            other = self._template(_of_callers(turns), reply=reply, at=at)
            found = other if other.left_out < found.left_out else found
        return found

    def _fit(self, prompt: Prompt, truncate: bool, room: int, field: str) -> Prompt:
        context = self._loaded.context
        limit = context - room
        if limit < 2:
            raise BadRequest(
                Violation(
                    "sampling.max_new_tokens", f"{room} leaves no room in a context of {context} tokens"
                )
            )
        extra = len(prompt.ids) - limit
        if extra <= 0:
            return prompt
        if not truncate:
            kept = f" less {room} for the response" if room else ""
            raise TooLong(
                Violation(
                    field,
                    f"is {len(prompt.ids)} tokens long; the context holds {context}{kept}. Shorten it or set "
                    "`truncate` to drop tokens from the front",
                )
            )
        begin = self._text.begin
        head = begin if prompt.ids[: len(begin)] == begin else ()
        return Prompt((*head, *prompt.ids[len(head) + extra :]), extra, prompt.left_out)
