"""Read requests: from messages to records, or BadRequest that names every wrong field.

All that can be checked without the model is checked here; the runtime checks lengths and features.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from monitor.records import Clamp, Sampling
from monitor.rpc.wire import enums
from monitor.rpc.wire.problems import Problems
from monitor.v1 import monitor_pb2 as pb

MOST_STOPS = 16
LONGEST_STOP = 256
"""Maximum length of a stop string, in characters."""
LARGEST_TARGET = 100.0
"""Largest target of a clamp, up or down, in recorded maxima. Published useful values are within 5."""
MOST_CLAMPS = 64
MOST_INSPECTED = 256
DEFAULT_INSPECTED = 10
COLDEST = 0.01
"""Lowest temperature above 0; below it logits overflow in half precision."""
HOTTEST = 100.0

_INT32 = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Input:
    """The input of a request."""

    path: str
    """Path of the field in the message, for errors that the runtime finds later."""
    content: str | Sequence[Mapping[str, str]]
    """A text, or messages as `{"role": …, "content": …}`."""
    truncate: bool
    """Drop tokens from the front where the prompt is too long."""
    session: str = ""
    """The conversation that the request belongs to, as its caller names it; empty for none."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels that the request gives itself; policies may be limited to some."""
    relies_on: frozenset[str] = frozenset()
    """Policies without which the request must not run."""
    policies_field: str = "policies"
    """Path of that field."""

    @property
    def size(self) -> int:
        """Number of characters."""
        if isinstance(self.content, str):
            return len(self.content)
        return sum(len(turn["content"]) for turn in self.content)


@dataclass(frozen=True, slots=True)
class GenerationSpec:
    """A generation: what to run and what to return."""

    path: str
    """Path of its fields in the message, for errors that the runtime finds later."""
    input: Input
    sampling: Sampling
    clamps: tuple[Clamp, ...]
    include_tokens: bool


@dataclass(frozen=True, slots=True)
class Inspection:
    """An inspection: what to encode and how many features to return for each token."""

    input: Input
    top_k: int


def score(message: pb.ScoreRequest) -> Input:
    """Read a request of Score. Raises BadRequest."""
    problems = Problems()
    content = _input(message.input, "input", problems)
    problems.raise_any()
    return content


def generation(message: pb.Generation) -> GenerationSpec:
    """Read the generation in a request of Generate or GenerateStream. Raises BadRequest."""
    problems = Problems()
    content = _input(message.input, "generation.input", problems)
    sampling = _sampling(message.sampling, "generation.sampling", problems)
    clamps = _clamps(message.clamps, "generation.clamps", problems)
    problems.raise_any()
    return GenerationSpec("generation", content, sampling, clamps, message.include_tokens)


def inspection(message: pb.InspectRequest) -> Inspection:
    """Read a request of Inspect. Raises BadRequest."""
    problems = Problems()
    content = _input(message.input, "input", problems)
    top_k = message.top_k if message.HasField("top_k") else DEFAULT_INSPECTED
    problems.number("top_k", top_k, 1, MOST_INSPECTED)
    problems.raise_any()
    return Inspection(content, top_k)


def _input(message: pb.Input, path: str, problems: Problems) -> Input:
    kind = message.WhichOneof("content")
    if kind == "text":
        if not message.text:
            problems.add(f"{path}.text", "is empty; write at least one character")
        return Input(path, message.text, message.truncate, *session_and_labels(message, path, problems))
    if kind is None:
        problems.add(path, "has no content; set text or conversation")
        return Input(path, "", message.truncate)
    turns = _turns(message.conversation.messages, f"{path}.conversation.messages", problems)
    return Input(path, turns, message.truncate, *session_and_labels(message, path, problems))


def _turns(messages: Sequence[pb.ChatMessage], path: str, problems: Problems) -> list[dict[str, str]]:
    if not messages:
        problems.add(path, "is empty; write at least one message")
    for index, message in enumerate(messages):
        if message.role not in enums.ROLE:
            problems.add(f"{path}[{index}].role", "write ROLE_SYSTEM, ROLE_USER or ROLE_ASSISTANT")
        if not message.content:
            problems.add(f"{path}[{index}].content", "is empty; write at least one character")
    return [{"role": enums.ROLE.get(m.role, ""), "content": m.content} for m in messages]


def _sampling(message: pb.Sampling, path: str, problems: Problems) -> Sampling:
    default = Sampling()

    def value(name: str, otherwise: Any) -> Any:
        return getattr(message, name) if message.HasField(name) else otherwise

    sampling = Sampling(
        max_new_tokens=value("max_new_tokens", default.max_new_tokens),
        temperature=value("temperature", default.temperature),
        top_k=value("top_k", default.top_k),
        top_p=value("top_p", default.top_p),
        seed=value("seed", None),
        stop=tuple(message.stop),
    )
    check_sampling(sampling, f"{path}.", problems)
    return sampling


def check_sampling(sampling: Sampling, path: str, problems: Problems, most: str = "max_new_tokens") -> None:
    """Note what is out of range. `path` stands before the names of fields, and `most` is what one of them is called."""
    problems.number(f"{path}{most}", sampling.max_new_tokens, 1, _INT32)
    problems.number(f"{path}top_k", sampling.top_k, 0, _INT32)
    if sampling.temperature != 0:
        problems.number(f"{path}temperature", sampling.temperature, COLDEST, HOTTEST)
    if not 0 < sampling.top_p <= 1:
        problems.add(f"{path}top_p", f"is {sampling.top_p:g}; write a number above 0 and up to 1")
    _stops(sampling.stop, f"{path}stop", problems)


def _stops(stops: Sequence[str], path: str, problems: Problems) -> None:
    if len(stops) > MOST_STOPS:
        problems.add(path, f"has {len(stops)} strings; write at most {MOST_STOPS}")
    for index, stop in enumerate(stops[:MOST_STOPS]):
        if not 0 < len(stop) <= LONGEST_STOP:
            problems.add(f"{path}[{index}]", f"has {len(stop)} characters; write 1 to {LONGEST_STOP}")


def _clamps(messages: Iterable[pb.Clamp], path: str, problems: Problems) -> tuple[Clamp, ...]:
    clamps: dict[int, Clamp] = {}
    for index, message in enumerate(messages):
        where, error_term = enums.WHERE_OF.get(message.where), enums.ERROR_TERM_OF.get(message.error_term)
        if index >= MOST_CLAMPS:
            problems.add(path, f"has more than {MOST_CLAMPS} clamps; write fewer")
            break
        if message.feature in clamps:
            problems.add(
                f"{path}[{index}].feature", f"feature {message.feature} is clamped twice; write it once"
            )
        if where is None:
            problems.add(f"{path}[{index}].where", "write CLAMP_WHERE_ACTIVE or CLAMP_WHERE_EVERYWHERE")
            continue
        if error_term is None:
            problems.add(f"{path}[{index}].error_term", "write ERROR_TERM_KEEP or ERROR_TERM_DROP")
            continue
        problems.number(f"{path}[{index}].target", message.target, -LARGEST_TARGET, LARGEST_TARGET)
        clamps[message.feature] = Clamp(message.feature, message.target, where, error_term)
    return tuple(clamps.values())


LONGEST_SESSION = 128
MOST_LABELS = 16
LONGEST_LABEL = 200
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


class _Bound(Protocol):
    """What says which conversation a request belongs to, and what it is."""

    @property
    def session_id(self) -> str:
        """Empty for none."""

    @property
    def labels(self) -> Mapping[str, str]:
        """By name."""


def session_and_labels(message: _Bound, path: str, problems: Problems) -> tuple[str, dict[str, str]]:
    """The session id (empty for none) and the labels of an input. Adds wrong ones to `problems`."""
    if len(message.session_id) > LONGEST_SESSION:
        problems.add(f"{path}.session_id", f"is longer than {LONGEST_SESSION} characters")
    labels = dict(message.labels)
    if len(labels) > MOST_LABELS:
        problems.add(f"{path}.labels", f"has more than {MOST_LABELS} labels; write fewer")
        return message.session_id, {}
    for name, value in labels.items():
        if not _NAME.fullmatch(name):
            problems.add(
                f"{path}.labels", "a name must be 1 to 64 letters, digits, `_`, `.` or `-`, no digit first"
            )
        if len(value) > LONGEST_LABEL:
            problems.add(f"{path}.labels", f"a value is longer than {LONGEST_LABEL} characters")
    return message.session_id, labels
