"""Requests made from plain Python values: texts, turns, clamps and sampling options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict, Unpack

from monitor.v1 import monitor_pb2 as pb

Prompt = str | Iterable[Mapping[str, str]] | pb.Input
"""A text, the turns of a conversation as `{"role": …, "content": …}`, or an `Input`.

Roles are system, user, assistant and tool.
"""

Clamps = Mapping[int, float] | Iterable[pb.Clamp]
"""Targets by feature, in units of its recorded maximum, or `Clamp` messages, which have more fields.

A clamp that does not say where it applies edits every token where its target is above 0, else those on which the
feature is active.
"""

_ROLES = {
    "system": pb.ROLE_SYSTEM,
    "user": pb.ROLE_USER,
    "assistant": pb.ROLE_ASSISTANT,
    "tool": pb.ROLE_TOOL,
}


class InputOptions(TypedDict, total=False):
    """Options of the input of a request."""

    truncate: bool
    """Drop tokens from the front of a prompt that is too long, instead of failing."""
    session: str
    """Id of the conversation. Rules with `scope: session` add up their scores over all its requests."""
    labels: Mapping[str, str]
    """Labels of the request, by which policies can be limited to some requests."""


class GenerateOptions(InputOptions, total=False):
    """Options of a generation. The server has a default for each."""

    max_new_tokens: int
    """Maximum number of tokens to generate."""
    temperature: float
    """Divides the logits before sampling; 0 takes the likeliest token."""
    top_k: int
    """Sample from this many of the likeliest tokens; 0 keeps all."""
    top_p: float
    """Sample from the smallest set of tokens with this probability; 1 keeps all."""
    seed: int
    """Makes sampling repeatable."""
    stop: Sequence[str]
    """Stop strings: the generation ends before the first of them."""
    clamps: Clamps
    """Features that are set to a value while this request runs."""
    include_tokens: bool
    """Return every token with the readings of the watched features."""
    logprobs: int
    """Return log-probabilities of the response's tokens, and of so many of the likeliest beside each, 0 to 20."""


def as_input(prompt: Prompt, **options: Unpack[InputOptions]) -> pb.Input:
    """Make the `Input` message of a prompt. Raises ValueError for a turn without a known role and a content."""
    content = pb.Input()
    if isinstance(prompt, pb.Input):
        content.CopyFrom(prompt)
    elif isinstance(prompt, str):
        content.text = prompt
    else:
        content.conversation.messages.extend(map(_turn, prompt))
    if "truncate" in options:
        content.truncate = options["truncate"]
    if "session" in options:
        content.session_id = options["session"]
    content.labels.update(options.get("labels", {}))
    return content


def as_generation(prompt: Prompt | pb.Generation, **options: Unpack[GenerateOptions]) -> pb.Generation:
    """Make the `Generation` message of a prompt and its options.

    Raises ValueError for a value that the message cannot hold, and for options beside a complete `Generation`.
    """
    if isinstance(prompt, pb.Generation):
        if options:
            raise ValueError(f"a Generation says everything itself; leave out {', '.join(options)}")
        return prompt
    said: InputOptions = {}
    for name in ("truncate", "session", "labels"):
        if name in options:
            said[name] = options[name]
    generation = pb.Generation(
        input=as_input(prompt, **said),
        clamps=as_clamps(options.get("clamps", ())),
        include_tokens=options.get("include_tokens", False),
        logprobs=options.get("logprobs"),
    )
    for name in ("max_new_tokens", "temperature", "top_k", "top_p", "seed"):
        if name in options:
            setattr(generation.sampling, name, options[name])  # type: ignore[literal-required]
    generation.sampling.stop.extend(options.get("stop", ()))
    return generation


def as_clamps(clamps: Clamps) -> list[pb.Clamp]:
    """Make the `Clamp` messages."""
    if isinstance(clamps, Mapping):
        return [pb.Clamp(feature=feature, target=target) for feature, target in clamps.items()]
    return list(clamps)


def as_severity(name: str) -> pb.Severity:
    """The severity with this name; SEVERITY_UNSPECIFIED for an empty name. Raises ValueError for any other."""
    known = {"": pb.SEVERITY_UNSPECIFIED, "low": pb.SEVERITY_LOW, "medium": pb.SEVERITY_MEDIUM}
    known |= {"high": pb.SEVERITY_HIGH, "critical": pb.SEVERITY_CRITICAL}
    if name not in known:
        raise ValueError(f"{name!r} is no severity; write low, medium, high or critical")
    return known[name]


def _turn(turn: Mapping[str, str]) -> pb.ChatMessage:
    if set(turn) != {"role", "content"} or turn["role"] not in _ROLES:
        raise ValueError(
            f"{dict(turn)!r} is no turn; write {{'role': 'user', 'content': …}}, with one of the "
            f"roles {', '.join(_ROLES)}"
        )
    return pb.ChatMessage(role=_ROLES[turn["role"]], content=turn["content"])
