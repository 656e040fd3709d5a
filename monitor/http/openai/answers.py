"""Answers to completions and chat completions, whole and as streams of chunks, in the form of the OpenAI API."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from monitor.model.engine.requests import Released
from monitor.records import Digests, FinishReason
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


class Answer:
    """One answer on its way: its id, time and model stand in every piece of it."""

    def __init__(self, shape: AnswerShape, request_id: str, model: str, fingerprint: str) -> None:
        self.shape = shape
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
                "logprobs": None,
                "finish_reason": FINISH[choice.ending.reason],
            }
            for index, choice in enumerate(choices)
        ]
        head = self._head | {"object": self.shape.whole}
        return head | {"choices": listed, "usage": usage(choices, per_prompt)}

    def chunk(self, index: int, content: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
        """A piece of one choice."""
        choice = {"index": index, **content, "logprobs": None, "finish_reason": finish}
        return self._head | {"object": self.shape.chunk, "choices": [choice]}

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
