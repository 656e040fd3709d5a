"""Requests made from plain Python values: texts, turns, clamps and sampling options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict, Unpack

from monitor.v1 import monitor_pb2 as pb

Prompt = str | Iterable[Mapping[str, str]] | pb.Input
"""A text; the turns of a conversation, as `{"role": "user", "content": …}` (or system, assistant); or a message."""

Clamps = Mapping[int, float] | Iterable[pb.Clamp]
"""Values by feature, in units of its recorded maximum; or messages, which can say more."""

_ROLES = {"system": pb.ROLE_SYSTEM, "user": pb.ROLE_USER, "assistant": pb.ROLE_ASSISTANT}


class InputOptions(TypedDict, total=False):
    """What can be said of a prompt."""

    truncate: bool
    """Drop tokens from the front of a prompt that is too long, instead of failing."""
    session: str
    """Conversation over whose requests rules with `scope: session` add up."""
    labels: Mapping[str, str]
    """For policies that are bound to labels."""


class GenerateOptions(InputOptions, total=False):
    """What can be said of a generation. Defaults are the server's."""

    max_new_tokens: int
    """Most tokens to generate."""
    temperature: float
    """0 takes the likeliest token."""
    top_k: int
    """Sample from so many of the likeliest tokens; 0 keeps all."""
    top_p: float
    """Sample from the smallest set of tokens with this probability; 1 keeps all."""
    seed: int
    """Makes sampling repeatable."""
    stop: Sequence[str]
    """Texts before which the generation ends."""
    clamps: Clamps
    """Features that are set to a value while this request runs."""
    include_tokens: bool
    """Give back every token with the readings of the watched features."""


def as_input(prompt: Prompt, **options: Unpack[InputOptions]) -> pb.Input:
    """A prompt as the protocol has it. ValueError for a turn that is none."""
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
    """A generation as the protocol has it. ValueError for what it has no place for, or options beside a message."""
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
    )
    for name in ("max_new_tokens", "temperature", "top_k", "top_p", "seed"):
        if name in options:
            setattr(generation.sampling, name, options[name])  # type: ignore[literal-required]
    generation.sampling.stop.extend(options.get("stop", ()))
    return generation


def as_clamps(clamps: Clamps) -> list[pb.Clamp]:
    """Clamps as the protocol has them."""
    if isinstance(clamps, Mapping):
        return [pb.Clamp(feature=feature, target=target) for feature, target in clamps.items()]
    return list(clamps)


def as_severity(name: str) -> pb.Severity:
    """A severity by its name; unspecified for the empty one. ValueError for any other."""
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
