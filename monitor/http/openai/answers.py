"""Answers to completions and chat completions, whole and as streams of chunks, in the form of the OpenAI API."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from monitor.http.openai import logprobs
from monitor.model.engine.requests import Released
from monitor.records import Digests, FinishReason, TokenLogprobs, TokenSpellings
from monitor.rpc.runs import Ending

FINISH = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.POLICY: "content_filter",
}
"""`finish_reason` of generations that end without an error."""


@dataclass(frozen=True)
class Choice:
    """One generation that ended."""

    parts: Sequence[Released]
    ending: Ending
    prompt_tokens: int

    @property
    def text(self) -> str:
        """What was released of it."""
        return "".join(part.text for part in self.parts)


class AnswerShape(Protocol):
    """How one of the two methods words its answers."""

    prefix: str
    whole: str
    """Value of `object` in a whole answer."""
    chunk: str
    """Value of `object` in a stream."""

    def opening(self) -> Mapping[str, Any] | None:
        """What the first chunk of a choice holds beside its index; None where there is no such chunk."""

    def piece(self, text: str) -> Mapping[str, Any]:
        """What a chunk with text holds beside its index."""

    def closing(self, ending: Ending) -> Mapping[str, Any]:
        """What the last chunk of a choice holds beside its index and finish reason."""

    def choice(self, choice: Choice) -> Mapping[str, Any]:
        """What a whole choice holds beside its index and finish reason."""

    def logprobs(self, found: Sequence[TokenLogprobs], spell: TokenSpellings) -> Mapping[str, Any]:
        """Log-probabilities of tokens of a choice."""


class ChatShape:
    """`/v1/chat/completions`."""

    prefix, whole, chunk = "chatcmpl-", "chat.completion", "chat.completion.chunk"

    def opening(self) -> Mapping[str, Any] | None:
        """The role comes first, with empty content."""
        return {"delta": {"role": "assistant", "content": "", "refusal": None}}

    def piece(self, text: str) -> Mapping[str, Any]:
        """Text to append."""
        return {"delta": {"content": text}}

    def closing(self, ending: Ending) -> Mapping[str, Any]:
        """Nothing more, or what the policy that ended it wants to be shown."""
        return {"delta": {"refusal": ending.refusal} if ending.refusal else {}}

    def choice(self, choice: Choice) -> Mapping[str, Any]:
        """The message."""
        message = {"role": "assistant", "content": choice.text, "refusal": choice.ending.refusal or None}
        return {"message": message}

    def logprobs(self, found: Sequence[TokenLogprobs], spell: TokenSpellings) -> Mapping[str, Any]:
        """An entry for each token."""
        return logprobs.of_chat(found, spell)


class CompletionShape:
    """`/v1/completions`."""

    prefix, whole, chunk = "cmpl-", "text_completion", "text_completion"

    def opening(self) -> Mapping[str, Any] | None:
        """There is no chunk without text."""
        return None

    def piece(self, text: str) -> Mapping[str, Any]:
        """Text to append."""
        return {"text": text}

    def closing(self, ending: Ending) -> Mapping[str, Any]:
        """Nothing more."""
        return {"text": ""}

    def choice(self, choice: Choice) -> Mapping[str, Any]:
        """The text."""
        return {"text": choice.text}

    def logprobs(self, found: Sequence[TokenLogprobs], spell: TokenSpellings) -> Mapping[str, Any]:
        """Lists over the tokens."""
        return logprobs.of_completion(found, spell)


class Answer:
    """One answer on its way: its id, time and model stand in every piece of it."""

    def __init__(
        self,
        shape: AnswerShape,
        request_id: str,
        model: str,
        fingerprint: str,
        spell: TokenSpellings | None = None,
    ) -> None:
        """`spell` is given where log-probabilities were asked for."""
        self.shape, self._spell = shape, spell
        self._head = {
            "id": f"{shape.prefix}{request_id}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": fingerprint,
        }

    def whole(self, choices: Sequence[Choice], per_prompt: int) -> dict[str, Any]:
        """The answer in one piece."""
        listed = [
            {
                "index": index,
                **self.shape.choice(choice),
                "logprobs": self._logprobs([found for part in choice.parts for found in part.logprobs]),
                "finish_reason": FINISH[choice.ending.reason],
            }
            for index, choice in enumerate(choices)
        ]
        head = self._head | {"object": self.shape.whole}
        return head | {"choices": listed, "usage": usage(choices, per_prompt)}

    def chunk(
        self,
        index: int,
        content: Mapping[str, Any],
        finish: str | None = None,
        found: Sequence[TokenLogprobs] = (),
    ) -> dict[str, Any]:
        """A piece of one choice, with the log-probabilities that leave with it."""
        told = self._logprobs(found) if found else None
        choice = {"index": index, **content, "logprobs": told, "finish_reason": finish}
        return self._head | {"object": self.shape.chunk, "choices": [choice]}

    def _logprobs(self, found: Sequence[TokenLogprobs]) -> Mapping[str, Any] | None:
        return None if self._spell is None else self.shape.logprobs(found, self._spell)

    def counted(self, choices: Sequence[Choice], per_prompt: int) -> dict[str, Any]:
        """The last chunk of a stream that counts its tokens; it has no choice."""
        head = self._head | {"object": self.shape.chunk}
        return head | {"choices": [], "usage": usage(choices, per_prompt)}


def usage(choices: Sequence[Choice], per_prompt: int) -> dict[str, int]:
    """Tokens of all prompts, each once however many answers it got, and of all answers."""
    prompt = sum(choice.prompt_tokens for choice in choices[::per_prompt])
    completion = sum(choice.ending.tokens_generated for choice in choices)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def fingerprint(digests: Digests) -> str:
    """`system_fingerprint`: changes where model, dictionary or policies do."""
    parts = (digests.model, digests.dictionary, digests.policies)
    return "fp_" + "-".join(part.removeprefix("sha256:")[:8] for part in parts)
