"""Requests of the OpenAI API, read into records; every wrong field is named, and none is passed over unread.

What this server cannot do is refused and not ignored: a caller who asks for tools or JSON would otherwise take an
answer for what it is not. The extension object `sae_monitor` carries what the API has no field for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from monitor.errors import NotFound
from monitor.http.fields import Fields
from monitor.http.openai.logprobs import MOST_IN_CHATS, MOST_IN_COMPLETIONS
from monitor.records import LARGEST_TARGET, Clamp, ErrorTerm, Sampling, Where
from monitor.rpc.wire.problems import Problems
from monitor.rpc.wire.requests import (
    MOST_CLAMPS,
    MOST_MESSAGES,
    GenerationSpec,
    Input,
    check_sampling,
    session_and_labels,
)

W = TypeVar("W", Where, ErrorTerm)

EXTENSION = "sae_monitor"
MOST_CHOICES = 16
"""Maximum of `n`, and of the prompts or inputs in one request."""
MOST_PARTS = 1024
"""Maximum number of parts of one message or input."""
MOST_POLICIES = 64
"""Maximum number of policies that one request relies on."""
_COMPLETION_TOKENS = 16
"""What the API gives a completion that says no `max_tokens`."""
_UNUSED = (
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
)
"""Fields that ask nothing of a model."""
_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
"""Roles of messages, and the role that chat templates know instead."""


@dataclass(frozen=True)
class Completion:
    """What a completion or chat completion asks for."""

    specs: tuple[GenerationSpec, ...]
    """The generations to run, one for each choice of the answer."""
    prompts: int
    """How many different prompts these have; the choices of one stand together."""
    stream: bool
    include_usage: bool
    """Whether a stream ends with a chunk that counts tokens."""

    @property
    def choices_per_prompt(self) -> int:
        """Number of answers to each prompt."""
        return len(self.specs) // self.prompts


@dataclass(frozen=True)
class Moderation:
    """What a moderation asks for."""

    inputs: tuple[Input, ...]


@dataclass(frozen=True)
class Extension:
    """What stands in the object `sae_monitor` of a request."""

    clamps: tuple[Clamp, ...]
    session: str
    labels: Mapping[str, str]
    relies_on: frozenset[str]
    truncate: bool
    include_tokens: bool

    def input(self, path: str, content: str | Sequence[Mapping[str, str]]) -> Input:
        """An input under this extension."""
        return Input(
            path,
            content,
            self.truncate,
            self.session,
            self.labels,
            self.relies_on,
            f"{EXTENSION}.policies",
        )


def chat(body: Mapping[str, Any], model: str, context: int, messages: int = MOST_MESSAGES) -> Completion:
    """Read a request of `/v1/chat/completions`, of at most so many messages, for a model of this name and context.

    Raises BadRequest, and NotFound for another model.
    """
    problems = Problems()
    fields = Fields(body, problems)
    _check_model(fields, model)
    turns = _turns(fields, messages)
    extension = extension_in(fields)
    longest = "max_completion_tokens" if fields.has("max_completion_tokens") else "max_tokens"
    # No limit of its own: an answer ends by itself, or at the end of the context.
    sampling = _sampling(fields, problems, longest, fields.integer(longest, context))
    fields.unused(("max_tokens", *_UNUSED))
    _refuse_chat(fields)
    logprobs = _chat_logprobs(fields)
    found = _completion(fields, [extension.input("messages", turns)], sampling, extension, logprobs)
    fields.finish()
    problems.raise_any()
    return found


def completion(body: Mapping[str, Any], model: str) -> Completion:
    """Read a request of `/v1/completions`. Raises BadRequest, and NotFound for another model."""
    problems = Problems()
    fields = Fields(body, problems)
    _check_model(fields, model)
    prompts = _prompts(fields, "prompt")
    extension = extension_in(fields)
    longest = fields.integer("max_tokens", _COMPLETION_TOKENS)
    sampling = _sampling(fields, problems, "max_tokens", longest)
    fields.unused(_UNUSED)
    _refuse_completion(fields)
    inputs = [extension.input("prompt", prompt) for prompt in prompts]
    logprobs = _number_of_logprobs(fields, "logprobs", MOST_IN_COMPLETIONS)
    found = _completion(fields, inputs, sampling, extension, logprobs)
    fields.finish()
    problems.raise_any()
    return found


def moderation(body: Mapping[str, Any], model: str) -> Moderation:
    """Read a request of `/v1/moderations`; the model may be left out. Raises BadRequest, and NotFound."""
    problems = Problems()
    fields = Fields(body, problems)
    if fields.has("model"):
        _check_model(fields, model)
    texts = _moderated(fields)
    extension = extension_in(fields)
    if extension.clamps:
        fields.wrong(f"{EXTENSION}.clamps", "a moderation generates nothing to clamp; leave it out")
    fields.unused(_UNUSED)
    fields.finish()
    problems.raise_any()
    return Moderation(tuple(extension.input("input", text) for text in texts))


def _check_model(fields: Fields, served: str) -> None:
    asked = fields.text("model")
    if not asked:
        fields.wrong("model", f"is missing; write `{served}`, which this server runs")
    elif asked != served:
        raise NotFound(f"this server runs the model `{served}` and no other; write that in `model`")


def _chat_logprobs(fields: Fields) -> int | None:
    """Of how many of the likeliest tokens a chat wants log-probabilities; None where it wants none at all."""
    most = _number_of_logprobs(fields, "top_logprobs", MOST_IN_CHATS)
    if fields.boolean("logprobs"):
        return most or 0
    if most:
        fields.wrong("top_logprobs", "needs `logprobs`; set that to true, or leave both out")
    return None


def _number_of_logprobs(fields: Fields, name: str, most: int) -> int | None:
    found = fields.integer(name, 0) if fields.has(name) else None
    if found is None or 0 <= found <= most:
        return found
    fields.wrong(name, f"is {found}; write a whole number from 0 to {most}")
    return None


def _completion(
    fields: Fields,
    inputs: Sequence[Input],
    sampling: Sampling,
    extension: Extension,
    logprobs: int | None,
) -> Completion:
    choices = fields.integer("n", 1)
    if not 1 <= choices <= MOST_CHOICES or choices * len(inputs) > MOST_CHOICES:
        fields.wrong("n", f"asks for too many answers, or none; at most {MOST_CHOICES} may be asked at once")
        choices = 1
    stream = fields.boolean("stream")
    options = fields.object("stream_options")
    if fields.has("stream_options") and not stream:
        fields.wrong("stream_options", "is for streams; leave it out, or set `stream`")
    usage = options.boolean("include_usage")
    options.refused("include_obfuscation", "is not available; leave it out", False)
    options.finish()
    specs = [
        GenerationSpec(
            EXTENSION, asked, _seeded(sampling, choice), extension.clamps, extension.include_tokens, logprobs
        )
        for asked in inputs
        for choice in range(choices)
    ]
    return Completion(tuple(specs), max(1, len(inputs)), stream, usage)


def _seeded(sampling: Sampling, choice: int) -> Sampling:
    """The sampling of one choice: each has a seed of its own, or all would say the same."""
    if sampling.seed is None or choice == 0:
        return sampling
    seed = (sampling.seed + choice + 2**63) % 2**64 - 2**63
    return Sampling(
        sampling.max_new_tokens, sampling.temperature, sampling.top_k, sampling.top_p, seed, sampling.stop
    )


def _sampling(fields: Fields, problems: Problems, longest: str, most: int) -> Sampling:
    seed = fields.integer("seed", 0) if fields.has("seed") else None
    if seed is not None and not -(2**63) <= seed < 2**63:
        fields.wrong("seed", "is too large; write a whole number of 64 bits")
        seed = None
    sampling = Sampling(
        max_new_tokens=most,
        temperature=fields.number("temperature", 1.0),
        top_k=max(0, fields.integer("top_k", 0)),  # -1 stands for all elsewhere
        top_p=fields.number("top_p", 1.0),
        seed=seed,
        stop=fields.texts("stop"),
    )
    check_sampling(sampling, "", problems, longest)
    return sampling


def _turns(fields: Fields, most: int) -> list[dict[str, str]]:
    if fields.raw("messages") in (None, []):
        fields.wrong("messages", "is empty; write at least one message")
    return [_turn(message) for message in fields.objects("messages", most)]


def _turn(message: Fields) -> dict[str, str]:
    role = message.text("role")
    if role not in _ROLES:
        message.wrong("role", f"write one of {', '.join(_ROLES)}")
    content = _content(message)
    if not content:
        message.wrong("content", "is empty; write at least one character")
    message.refused("name", "is not available; leave it out, or write the name in the content", "")
    for name in ("tool_calls", "function_call", "audio"):
        message.refused(name, "is not read by this server; leave it out", [])
    message.unused(("refusal", "annotations", "tool_call_id"))
    message.finish()
    return {"role": _ROLES.get(role, "user"), "content": content}


def _content(message: Fields) -> str:
    """The text of a message: a text, or the texts of its parts on lines of their own."""
    value = message.raw("content")
    if isinstance(value, list):
        return "\n".join(_part(part) for part in message.objects("content", MOST_PARTS))
    return message.text("content")


def _part(part: Fields) -> str:
    kind = part.text("type")
    if kind not in ("text", "refusal"):
        part.wrong("type", "this server reads parts of type text; an image or a sound cannot be scored")
        return ""
    text = part.text(kind)
    part.unused(("cache_control",))
    part.finish()
    return text


def _prompts(fields: Fields, name: str) -> tuple[str, ...]:
    value = fields.raw(name)
    if isinstance(value, list) and any(isinstance(item, int | list) for item in value):
        fields.wrong(name, "holds token ids; write text, which this server tokenises itself")
        return ()
    texts = fields.texts(name)
    if not texts or not all(texts):
        fields.wrong(name, "is empty; write at least one character")
    if len(texts) > MOST_CHOICES:
        fields.wrong(name, f"has {len(texts)} texts; write at most {MOST_CHOICES}")
    return texts


def _moderated(fields: Fields) -> tuple[str, ...]:
    """The texts of a moderation. Parts, which are objects, are together one input."""
    value = fields.raw("input")
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return ("\n".join(_part(part) for part in fields.objects("input", MOST_PARTS)),)
    return _prompts(fields, "input")


def _refuse_chat(fields: Fields) -> None:
    for name in ("tools", "functions"):
        fields.refused(name, "tools are not available; leave it out", [])
    for name in ("tool_choice", "function_call"):
        fields.refused(name, "tools are not available; leave it out", "none", "auto")
    fields.refused("response_format", "only text is available; leave it out", {"type": "text"})
    fields.refused("modalities", "only text is available; leave it out", ["text"])
    for name in ("audio", "prediction", "web_search_options", "reasoning_effort", "verbosity"):
        fields.refused(name, "is not available; leave it out")
    _refuse_sampling(fields)


def _refuse_completion(fields: Fields) -> None:
    fields.refused("echo", "is not available; leave it out", False)
    fields.refused("suffix", "is not available; leave it out", "")
    fields.refused("best_of", "is not available; leave it out, or write 1", 1)
    _refuse_sampling(fields)


def _refuse_sampling(fields: Fields) -> None:
    for name in ("frequency_penalty", "presence_penalty"):
        fields.refused(name, "is not available; leave it out, or write 0", 0)
    fields.refused("logit_bias", "is not available; leave it out", {})


def extension_in(fields: Fields) -> Extension:
    """The extension object in a body."""
    given = fields.object(EXTENSION)
    problems = given.problems
    session, labels = session_and_labels(
        Named(given.text("session_id"), labels_in(given)), given.path, problems
    )
    policies = given.texts("policies")
    if len(policies) > MOST_POLICIES:
        given.wrong("policies", f"has {len(policies)} names; write at most {MOST_POLICIES}")
    found = Extension(
        clamps_in(given),
        session,
        labels,
        frozenset(policies[:MOST_POLICIES]),
        given.boolean("truncate"),
        given.boolean("include_tokens"),
    )
    given.finish()
    return found


@dataclass(frozen=True)
class Named:
    """Session and labels of a request, as the check of gRPC messages reads them."""

    session_id: str
    labels: Mapping[str, str]


def labels_in(given: Fields, name: str = "labels") -> dict[str, str]:
    """The labels in a field; their names and lengths are still to be checked."""
    value = given.raw(name)
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        given.wrong(name, "write an object whose values are texts")
        return {}
    return dict(value)


def clamps_in(given: Fields, name: str = "clamps") -> tuple[Clamp, ...]:
    """The clamps in a field."""
    clamps: dict[int, Clamp] = {}
    for asked in given.objects(name, MOST_CLAMPS):
        feature, target = asked.integer("feature", -1), asked.number("target", float("nan"))
        where = _word(asked, "where", Where, Where.by_default(target))
        term = _word(asked, "error_term", ErrorTerm, ErrorTerm.KEEP)
        if not 0 <= feature < 2**32:
            asked.wrong("feature", "write the feature's index in the dictionary")
        if feature in clamps:
            asked.wrong("feature", f"feature {feature} is clamped twice; write it once")
        asked.finish()
        if given.problems.number(asked.at("target"), target, -LARGEST_TARGET, LARGEST_TARGET):
            clamps[feature] = Clamp(feature, target, where, term)
    return tuple(clamps.values())


def _word(asked: Fields, name: str, words: type[W], default: W) -> W:
    value = asked.text(name)
    if not value:
        return default
    try:
        return words(value)
    except ValueError:
        asked.wrong(name, f"write {' or '.join(word.value for word in words)}")
        return default
