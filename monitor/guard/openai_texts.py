"""What of requests and answers in the form of the OpenAI API is text, and what is not.

Everything in them that is a text is read, also under names that nobody knows yet. What is no text, such as an image,
is counted: nothing that holds it counts as checked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import Any

from monitor.guard.settled_text import whole_characters


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ROLES = {
    "system": "system",
    "developer": "system",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
"""Roles as chat templates call them; all others are the caller's. So is what tools return where the watching model's
template knows no tools: neither the model nor the operator wrote it."""
_PLAIN_OF_REQUEST = _words(
    "model messages prompt stream stream_options n best_of max_tokens max_completion_tokens min_tokens "
    "temperature top_p top_k min_p typical_p seed stop stop_token_ids frequency_penalty presence_penalty "
    "repetition_penalty length_penalty logit_bias logprobs top_logprobs prompt_logprobs echo user "
    "safety_identifier prompt_cache_key service_tier store metadata modalities audio parallel_tool_calls "
    "tool_choice function_call reasoning_effort verbosity include_reasoning ignore_eos "
    "skip_special_tokens spaces_between_special_tokens add_special_tokens add_generation_prompt "
    "continue_final_message use_beam_search early_stopping truncate_prompt_tokens priority request_id "
    "cache_salt return_token_ids return_tokens_as_token_ids sae_monitor"
)
"""Fields that hold nothing for the model to read."""
_UNREADABLE = ("prompt_embeds", "chat_template", "mm_processor_kwargs")
"""Fields that change what the model reads in a way that cannot be followed."""
_CALLS = ("tool_calls", "function_call")
"""Fields of a message that hold calls of tools."""
_KINDS = ("function", "custom")
"""Fields of a call that hold its name and its arguments."""
_PLAIN_OF_MESSAGE = _words("role index id type tool_call_id call_id status object")
_PLAIN_OF_CHOICE = _words(
    "index finish_reason stop_reason logprobs token_ids prompt_token_ids prompt_logprobs "
    "native_finish_reason matched_stop content_filter_results"
)
_PLAIN_OF_ANSWER = _words(
    "id object created model choices usage system_fingerprint service_tier obfuscation error timings provider "
    "prompt_progress prompt_filter_results prompt_token_ids prompt_logprobs kv_transfer_params sae_monitor "
    "sae_monitor_upstream"
)
_PLAIN_OF_ERROR = _words("message type param code status object request_id")
"""Fields of an error that are the server's own words. Others may quote what the model wrote (`failed_generation`)."""
_MEDIA = _words("image_url image input_image input_audio audio audio_url video_url video file input_file")
"""Types of parts that are no text, whatever texts, such as addresses and file names, they hold."""
_BYTES = ("data", "b64_json", "file_data")
_NAME = re.compile(r"[A-Za-z0-9_]{1,32}")


@dataclass(frozen=True, slots=True)
class CallText:
    """A text beside the conversation, such as a call of a tool. Each is read by itself: two never make a third."""

    name: str
    """Which one it is, such as `messages[2].tool_calls[0]`, or `messages[2].content` of parts that run on."""
    text: str


@dataclass(frozen=True, slots=True)
class RequestText:
    """What the model is asked to read."""

    content: str | tuple[Mapping[str, str], ...]
    """A text, or turns as `{"role": …, "content": …}`, without calls of tools."""
    unread: int
    """Parts that hold no text."""
    calls: tuple[CallText, ...] = ()
    """Calls of tools in a conversation, and contents whose parts make other words where nothing stands between them."""


@dataclass(frozen=True, slots=True)
class AnswerText:
    """A text in an answer, or in a piece of one."""

    place: str
    """`content` for what is said, another word for what is thought, called or refused."""
    text: str
    call: str = ""
    """Of a call of a tool: which one it is, such as `tool_calls[0]`. Each is a text of its own."""


@dataclass(frozen=True, slots=True)
class AnswerTexts:
    """All texts of a choice, in the order in which they are read."""

    texts: tuple[AnswerText, ...]
    unread: int
    """Parts that hold no text."""


def chat(body: Mapping[str, Any]) -> RequestText:
    """The conversation of a chat completion. Descriptions of tools and the like are read as the operator's."""
    texts, unread = _besides(body)
    found = _read([("system", "\n".join(texts))] if texts else [], body.get("messages"), "messages")
    return replace(found, unread=found.unread + unread)


def conversation(messages: Any, name: str = "messages") -> RequestText:
    """The turns of a list of messages, and their calls of tools. `name` is that of its field.

    Neighbouring messages of one role become one turn, because many chat templates want roles to alternate. What tools
    returned is a turn for each.
    """
    return _read([], messages, name)


def message(given: Any, name: str = "message") -> RequestText:
    """The text of one message, which may be empty, and its calls of tools. `name` is that of its field."""
    _, text, unread = _message(given)
    return RequestText(text, unread, _calls_of(given, name))


def called(name: str, calls: Any) -> tuple[CallText, ...]:
    """The calls in a list of calls of tools, or a single one. `name` is that of its field."""
    texts: dict[str, list[str]] = {}
    for found in _calls(name, calls, pieces=False):
        texts.setdefault(found.call, []).append(found.text)
    joined = ((which, "\n".join(filter(None, parts))) for which, parts in texts.items())
    return tuple(CallText(which, text) for which, text in joined if text.strip())


def _read(turns: list[tuple[str, str]], messages: Any, name: str) -> RequestText:
    """Turns and messages behind them."""
    unread = 0
    calls: list[CallText] = []
    for number, message in enumerate(messages if isinstance(messages, list) else []):
        role, text, others = _message(message)
        unread += others
        made = _calls_of(message, f"{name}[{number}]")
        calls += made
        if text.strip() or made:
            turns.append((role, text if text.strip() else "[tool_calls]"))
    return RequestText(tuple(_joined(turns)), unread, tuple(calls))


def _joined(turns: Sequence[tuple[str, str]]) -> Iterator[Mapping[str, str]]:
    """Neighbours of one role as one turn; what tools returned never, because they are texts of different tools."""
    for role, same in groupby(turns, key=lambda turn: turn[0]):
        texts = [text for _, text in same]
        for text in texts if role == "tool" else ["\n\n".join(texts)]:
            yield {"role": role, "content": text}


def _calls_of(message: Any, name: str) -> tuple[CallText, ...]:
    """The texts of a message that are read by themselves."""
    if not isinstance(message, Mapping):
        return ()
    calls = (found for field in _CALLS for found in called(f"{name}.{field}", message.get(field)))
    return (*_run_on(message.get("content"), f"{name}.content"), *calls)


def _run_on(content: Any, name: str) -> Iterator[CallText]:
    """Parts of a content with nothing between them, where that makes other words of them.

    Chat templates join parts by a line break, by a space or by nothing, as model and server have it. What is read in
    the conversation stands for the first two.
    """
    parts = [_text_of(part) for part in content] if isinstance(content, list) else []
    texts = [whole_characters(text) for text in parts if text]
    if any(not (left[-1].isspace() or right[0].isspace()) for left, right in pairwise(texts)):
        yield CallText(name, "".join(texts))


def completions(body: Mapping[str, Any]) -> list[RequestText]:
    """The prompts of a completion."""
    texts, unread = _besides(body)
    given = body.get("prompt")
    prompts = given if isinstance(given, list) and not _token_ids(given) else [given]
    found = []
    for prompt in prompts:
        text = whole_characters(prompt) if isinstance(prompt, str) else "[tokens]"
        others = unread + (not isinstance(prompt, str))
        found.append(RequestText("\n\n".join([*texts, text]), others))
    return found


def answer(choice: Mapping[str, Any]) -> AnswerTexts:
    """The texts of a choice, whole (`message` or `text`) or a piece of one (`delta` or `text`)."""
    texts: list[AnswerText] = []
    unread = 0
    for name, value in choice.items():
        if name in ("message", "delta") and isinstance(value, Mapping):
            found = _said(value, pieces=name == "delta")
            texts += found.texts
            unread += found.unread
        elif name == "text" and isinstance(value, str):
            texts.append(AnswerText("content", whole_characters(value)))
        elif name not in _PLAIN_OF_CHOICE and (text := _described(value)):
            texts.append(AnswerText(name, text))
    return AnswerTexts(tuple(found for found in texts if found.text), unread)


def beside(content: Mapping[str, Any]) -> AnswerTexts:
    """The texts of an answer or an error, whole or a piece, that stand in none of its choices."""
    unknown = {name: value for name, value in content.items() if name not in _PLAIN_OF_ANSWER}
    quoted = {name: value for name, value in _error(content).items() if name not in _PLAIN_OF_ERROR}
    found = [*unknown.items(), *quoted.items()]
    texts = [AnswerText(name, text) for name, value in found if (text := _described(value))]
    return AnswerTexts(tuple(texts), sum(map(_holds_bytes, unknown.values())))


def without_beside(content: Mapping[str, Any]) -> dict[str, Any]:
    """An answer or an error, whole or a piece, without what `beside` reads."""
    kept = {name: value for name, value in content.items() if name in _PLAIN_OF_ANSWER}
    if error := _error(content):
        kept["error"] = {name: value for name, value in error.items() if name in _PLAIN_OF_ERROR}
    return kept


def _error(content: Mapping[str, Any]) -> Mapping[str, Any]:
    found = content.get("error")
    return found if isinstance(found, Mapping) else {}


def _said(message: Mapping[str, Any], *, pieces: bool) -> AnswerTexts:
    """The texts of an assistant's message: what it thought first, then what it said, then what it calls."""
    texts: list[AnswerText] = []
    unread = 0
    for name in sorted(message, key=_reading_order):
        value = message[name]
        if name in _PLAIN_OF_MESSAGE or value in (None, "", [], {}):
            continue
        if name == "content":
            said, others = _content(value)
            texts += [AnswerText("content", text) for text in said]
            unread += others
        elif name == "audio":
            unread += 1
            transcript = value.get("transcript") if isinstance(value, Mapping) else None
            texts += (
                [AnswerText("audio", whole_characters(transcript))] if isinstance(transcript, str) else []
            )
        elif name in _CALLS:
            texts += _calls(name, value, pieces=pieces)
            unread += _holds_bytes(value)
        elif isinstance(value, str):
            texts.append(AnswerText(name, whole_characters(value)))
        elif text := _described(value):
            texts.append(AnswerText(name, text))
            unread += _holds_bytes(value)
    return AnswerTexts(tuple(texts), unread)


def _reading_order(name: str) -> int:
    order = ("reasoning_content", "reasoning", "thinking", "content", "refusal", "tool_calls")
    return order.index(name) if name in order else len(order)


def _calls(name: str, value: Any, *, pieces: bool) -> Iterator[AnswerText]:
    """Texts of calls of tools. Pieces of them are told apart by their index, as client libraries do it."""
    for place, call in enumerate(value) if isinstance(value, list) else [(None, value)]:
        given = call.get("index") if pieces and isinstance(call, Mapping) else None
        number = given if isinstance(given, int) and not isinstance(given, bool) else place
        which = name if number is None else f"{name}[{number}]"
        for field, text in _fields_of_call(call):
            yield AnswerText(f"{which}.{field}" if field else which, text, which)


def _fields_of_call(call: Any) -> Iterator[tuple[str, str]]:
    """The texts in a call of a tool, each with the name of its field."""
    if not isinstance(call, Mapping):
        yield "", _described(call)
        return
    inner = {kind: call[kind] for kind in _KINDS if kind in call}
    rest = {field: value for field, value in call.items() if field not in _KINDS}
    for kind, part in [*inner.items(), ("", rest)]:
        if not isinstance(part, Mapping):
            yield kind, _described(part)
            continue
        # Its name comes first, wherever a client library puts it.
        for field in sorted(part, key=lambda field: field != "name"):
            if field not in _PLAIN_OF_MESSAGE and part[field]:
                yield field, _described(part[field])


def _message(message: Any) -> tuple[str, str, int]:
    """Role and text of a message, and how many of its parts are no text."""
    if not isinstance(message, Mapping):
        return "user", _described(message), 0
    role = _ROLES.get(str(message.get("role")), "user")
    texts, unread = _content(message.get("content"))
    for name, value in message.items():
        if name in ("content", *_PLAIN_OF_MESSAGE) or value in (None, "", [], {}):
            continue
        unread += name == "audio" or _holds_bytes(value)
        if name not in ("audio", *_CALLS):
            texts.append(whole_characters(value) if isinstance(value, str) else _described(value))
    return role, "\n".join(texts), unread


def _content(content: Any) -> tuple[list[str], int]:
    """The texts in a message's content, and the number of parts that are none, which are named in brackets."""
    if isinstance(content, str):
        return [whole_characters(content)], 0
    found, unread = [], 0
    parts = content if isinstance(content, list) else [content]
    for part in parts:
        if part is None:
            continue
        kind = part.get("type") if isinstance(part, Mapping) else None
        text = _text_of(part)
        known = text is not None and kind not in _MEDIA
        if text is not None:
            found.append(whole_characters(text))
        if not known:
            unread += 1
            found.append(f"[{kind if isinstance(kind, str) and _NAME.fullmatch(kind) else 'unknown'}]")
        elif isinstance(part, Mapping) and (rest := _rest_of(part)):
            found.append(rest)
    return found, unread


def _text_of(part: Any) -> str | None:
    """What a part of a content says; None where it has no text."""
    if isinstance(part, Mapping):
        names = ("text", "refusal", "thinking")
        return next((part[name] for name in names if isinstance(part.get(name), str)), None)
    return part if isinstance(part, str) else None


def _rest_of(part: Mapping[str, Any]) -> str:
    """What a part of text holds beside its text."""
    names = ("type", "text", "refusal", "thinking", "cache_control")
    rest = {name: value for name, value in part.items() if name not in names and value}
    return _described(rest) if rest else ""


def _besides(body: Mapping[str, Any]) -> tuple[list[str], int]:
    """What a request gives the model to read besides messages or prompts: tools, schemas, documents."""
    texts, unread = [], 0
    for name, value in body.items():
        if name in _UNREADABLE and value:
            unread += 1
        if name in _PLAIN_OF_REQUEST or name == "prompt_embeds":
            continue
        texts += [_described(item) for item in (value if isinstance(value, list) else [value])]
        unread += _holds_bytes(value)
    return [text for text in texts if text], unread


def _described(value: Any) -> str:
    """A value as text; empty where it holds none."""
    if isinstance(value, str):
        return whole_characters(value)
    return whole_characters(json.dumps(value, ensure_ascii=False)) if _holds_text(value) else ""


def _holds_text(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    if isinstance(value, Mapping):
        return any(_holds_text(name) for name in value) or any(map(_holds_text, value.values()))
    return isinstance(value, Sequence) and any(map(_holds_text, value))


def _holds_bytes(value: Any) -> bool:
    """True where a value holds what stands for bytes, such as a picture."""
    if isinstance(value, Mapping):
        return (
            value.get("type") in _MEDIA
            or any(name in value for name in _BYTES)
            or any(map(_holds_bytes, value.values()))
        )
    return isinstance(value, list) and any(map(_holds_bytes, value))


def _token_ids(prompt: Sequence[Any]) -> bool:
    return bool(prompt) and isinstance(prompt[0], int) and not isinstance(prompt[0], bool)
