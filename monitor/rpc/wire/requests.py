"""Read requests: from messages to records, or BadRequest that names every wrong field.

All that can be checked without the model is checked here; the runtime checks lengths and features.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

from monitor.errors import BadRequest, TooLong, Violation
from monitor.guard.openai_texts import CallText
from monitor.records import LARGEST_TARGET, Clamp, FinishReason, Holding, Sampling, Where
from monitor.rpc.wire import enums
from monitor.rpc.wire.problems import Problems
from monitor.v1 import monitor_pb2 as pb

MOST_STOPS = 16
LONGEST_STOP = 256
"""Maximum length of a stop string, in characters."""
MOST_CLAMPS = 64
MOST_INSPECTED = 256
DEFAULT_INSPECTED = 10
MOST_LOGPROBS = 20
"""Maximum number of likeliest tokens that are told at each token of a response."""
MOST_LOGPROBS_IN_ONE = 1 << 18
"""Maximum number of log-probabilities in an answer in one piece: other calls wait while it is written."""
DEFAULT_SAMPLE = 32
"""Tokens that may be shown before they were scored, where a caller samples and says no number."""
LONGEST_PART = 64
LONGEST_CALL = 128
"""Maximum length of the name of a call of a tool, in characters."""
MOST_MESSAGES = 4096
"""Maximum number of messages of a conversation, where the operator sets no other."""
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
    answer: bool = False
    """The text, or the last message where an assistant wrote it, is what a model said: rules for responses read it."""
    unread: int = 0
    """Parts, such as images, that cannot be scored: the verdict is UNKNOWN."""

    cut: int = 0
    """Bytes that were dropped from the front before anything was tokenised."""

    @property
    def size(self) -> int:
        """Number of bytes of its texts."""
        return sum(len(text.encode("utf-8", "surrogatepass")) for text in self.texts)

    @property
    def texts(self) -> Sequence[str]:
        """Its text, or the contents of its messages."""
        return [self.content] if isinstance(self.content, str) else [turn["content"] for turn in self.content]


@dataclass(frozen=True, slots=True)
class InputLimits:
    """How large an input may be, so that what cannot fit the model's context is not tokenised to find that out."""

    context: int
    """Tokens of the model's context."""
    longest_token: int
    """Bytes of the longest token."""
    messages: int = MOST_MESSAGES
    """Maximum number of messages of a conversation."""

    @property
    def size(self) -> int:
        """Bytes of the largest input that can fit the context."""
        return self.context * self.longest_token

    def fewest_tokens(self, size: int) -> int:
        """The smallest number of tokens that a text of so many bytes can have."""
        return -(-size // self.longest_token)

    def fitted(self, asked: Input) -> Input:
        """The input as it may be tokenised: cut at the front where it is too large and its caller allows that.

        Raises TooLong where its caller does not, and BadRequest where it has too many messages. Fields are relative to
        the input.
        """
        whole = isinstance(asked.content, str)
        if not whole and len(asked.content) > self.messages:
            raise BadRequest(
                Violation("conversation.messages", f"has {len(asked.content)}; write at most {self.messages}")
            )
        size = asked.size
        if size <= self.size:
            return asked
        if not asked.truncate:
            raise TooLong(
                Violation(
                    "text" if whole else "conversation",
                    f"is {size} bytes long; the context of {self.context} tokens holds no more than {self.size}. "
                    "Shorten it or set `truncate` to drop tokens from the front",
                )
            )
        kept = _tails(asked.texts, self.size)
        if isinstance(asked.content, str):
            content: str | Sequence[Mapping[str, str]] = kept[0]
        else:
            content = [dict(turn) | {"content": text} for turn, text in zip(asked.content, kept, strict=True)]
        cut = replace(asked, content=content)
        return replace(cut, cut=size - cut.size)


def _tails(texts: Sequence[str], size: int) -> list[str]:
    """The last `size` bytes of texts that follow each other. Of each at least the last character is kept."""
    kept, left = [], size
    for text in reversed(texts):
        data = text.encode("utf-8", "surrogatepass")
        tail = data[-left:].decode("utf-8", "ignore") if left > 0 else ""
        kept.append(tail or text[-1:])
        left -= len(data)
    return kept[::-1]


@dataclass(frozen=True, slots=True)
class GenerationSpec:
    """A generation: what to run and what to return."""

    path: str
    """Path of its fields in the message, for errors that the runtime finds later."""
    input: Input
    sampling: Sampling
    clamps: tuple[Clamp, ...]
    include_tokens: bool
    logprobs: int | None = None
    """How many of the likeliest tokens to tell of at each token of the response; None: no log-probabilities."""


def check_in_one(specs: Sequence[GenerationSpec], context: int, field: str, most: str) -> None:
    """Raise BadRequest where the answer in one piece to these generations may have too many log-probabilities.

    `field` is where they were asked for, `most` the name of the field that limits an answer's tokens.
    """
    values = sum(
        min(spec.sampling.max_new_tokens, context) * (spec.logprobs + 1)
        for spec in specs
        if spec.logprobs is not None
    )
    if values > MOST_LOGPROBS_IN_ONE:
        wrong = (
            f"asks for up to {values} log-probabilities, and an answer in one piece has at most "
            f"{MOST_LOGPROBS_IN_ONE}; lower `{most}`, ask for fewer, or stream it"
        )
        raise BadRequest(Violation(field, wrong))


@dataclass(frozen=True, slots=True)
class Inspection:
    """An inspection: what to encode and how many features to return for each token."""

    input: Input
    top_k: int


def score(message: pb.ScoreRequest, messages: int = MOST_MESSAGES) -> Input:
    """Read a request of Score, of at most so many messages. Raises BadRequest."""
    problems = Problems()
    content = _input(message.input, "input", messages, problems)
    problems.raise_any()
    return replace(content, answer=message.answer)


@dataclass(frozen=True, slots=True)
class StreamStart:
    """How a caller begins to push text that another server writes."""

    input: Input
    """What that server was asked; its content is empty where it comes in pieces."""
    holding: Holding
    sample_tokens: int
    """Of `Holding.SAMPLE`: tokens that may be shown before they were scored."""
    expected: int
    """Tokens that the answer will have."""
    calls: tuple[CallText, ...]
    """Calls of tools in what was asked."""

    def inputs_of_calls(self) -> list[Input]:
        """Each of them as an input, whose path is its name."""
        return [replace(self.input, path=call.name, content=call.text, unread=0) for call in self.calls]


class StreamedPiece(NamedTuple):
    """A piece of text on its way."""

    role: str
    text: str
    part: str
    """What it is a part of; empty for what is said."""
    settle: bool
    unread: int
    call: str
    """The call of a tool that it belongs to; empty for what is thought or said."""

    @property
    def answer(self) -> bool:
        """True where it is of the answer, False where it is of the prompt."""
        return self.role == "assistant"


def stream_start(message: pb.ScoreStreamRequest, messages: int = MOST_MESSAGES) -> StreamStart:
    """Read the first message of a ScoreStream. Raises BadRequest."""
    problems = Problems()
    if message.WhichOneof("event") != "begin":
        problems.add("begin", "is missing; begin with the message `begin`")
        problems.raise_any()
    begin = message.begin
    if begin.input.WhichOneof("content") is None:
        content = Input("begin.input", "", False, *session_and_labels(begin.input, "begin.input", problems))
    else:
        content = _input(begin.input, "begin.input", messages, problems)
    if begin.holding not in enums.HOLDING_OF:
        problems.add("begin.holding", "write HOLDING_HOLD, HOLDING_SAMPLE or HOLDING_END")
    calls = _calls(begin.calls, messages, problems)
    problems.raise_any()
    return StreamStart(
        replace(content, unread=begin.unread),
        enums.HOLDING_OF[begin.holding],
        begin.sample_tokens or DEFAULT_SAMPLE,
        begin.expected_tokens,
        calls,
    )


def _calls(given: Sequence[pb.CallText], most: int, problems: Problems) -> tuple[CallText, ...]:
    if len(given) > most:
        problems.add("begin.calls", f"has {len(given)}; write at most {most}")
        return ()
    for number, call in enumerate(given):
        if not 0 < len(call.name) <= LONGEST_CALL:
            problems.add(
                f"begin.calls[{number}].name", f"has {len(call.name)} characters; write 1 to {LONGEST_CALL}"
            )
        if not call.text.strip():
            problems.add(f"begin.calls[{number}].text", "is empty; write at least one character")
    return tuple(CallText(call.name, call.text) for call in given)


def stream_piece(message: pb.ScoreStreamRequest) -> StreamedPiece | None:
    """Read a later message of a ScoreStream; None where it is its end. Raises BadRequest."""
    kind = message.WhichOneof("event")
    if kind == "end":
        return None
    problems, piece = Problems(), message.piece
    if kind != "piece":
        problems.add("event", "is missing or comes twice; send `piece` or `end`")
    role = "assistant" if piece.role == pb.ROLE_UNSPECIFIED else enums.ROLE.get(piece.role, "")
    if not role:
        problems.add("piece.role", "write ROLE_SYSTEM, ROLE_USER, ROLE_TOOL or ROLE_ASSISTANT")
    if len(piece.part) > LONGEST_PART:
        problems.add("piece.part", f"is longer than {LONGEST_PART} characters")
    if len(piece.call) > LONGEST_CALL:
        problems.add("piece.call", f"is longer than {LONGEST_CALL} characters")
    if role != "assistant" and (piece.part or piece.unread or piece.call):
        problems.add("piece", "`part`, `unread` and `call` are of the assistant; leave them out")
    problems.raise_any()
    return StreamedPiece(role, piece.text, piece.part, piece.settle, piece.unread, piece.call)


def stream_end(message: pb.ScoreStreamRequest) -> FinishReason:
    """Why the other server ended its answer. Raises BadRequest."""
    reason = message.end.finish_reason
    if reason not in enums.FINISH_OF:
        wrong = "write FINISH_REASON_STOP, FINISH_REASON_LENGTH or FINISH_REASON_ERROR"
        raise BadRequest(Violation("end.finish_reason", wrong))
    return enums.FINISH_OF[reason]


def generation(message: pb.Generation, messages: int = MOST_MESSAGES) -> GenerationSpec:
    """Read the generation in a request of Generate or GenerateStream. Raises BadRequest."""
    problems = Problems()
    content = _input(message.input, "generation.input", messages, problems)
    sampling = _sampling(message.sampling, "generation.sampling", problems)
    clamps = _clamps(message.clamps, "generation.clamps", problems)
    logprobs = message.logprobs if message.HasField("logprobs") else None
    problems.number("generation.logprobs", logprobs or 0, 0, MOST_LOGPROBS)
    problems.raise_any()
    return GenerationSpec("generation", content, sampling, clamps, message.include_tokens, logprobs)


def inspection(message: pb.InspectRequest, messages: int = MOST_MESSAGES) -> Inspection:
    """Read a request of Inspect. Raises BadRequest."""
    problems = Problems()
    content = _input(message.input, "input", messages, problems)
    top_k = message.top_k if message.HasField("top_k") else DEFAULT_INSPECTED
    problems.number("top_k", top_k, 1, MOST_INSPECTED)
    problems.raise_any()
    return Inspection(content, top_k)


def _input(message: pb.Input, path: str, messages: int, problems: Problems) -> Input:
    kind = message.WhichOneof("content")
    if kind == "text":
        if not message.text:
            problems.add(f"{path}.text", "is empty; write at least one character")
        return Input(path, message.text, message.truncate, *session_and_labels(message, path, problems))
    if kind is None:
        problems.add(path, "has no content; set text or conversation")
        return Input(path, "", message.truncate)
    field = f"{path}.conversation.messages"
    if len(message.conversation.messages) > messages:  # before any of them is looked at
        problems.add(field, f"has {len(message.conversation.messages)}; write at most {messages}")
        return Input(path, [], message.truncate)
    turns = _turns(message.conversation.messages, field, problems)
    return Input(path, turns, message.truncate, *session_and_labels(message, path, problems))


def _turns(messages: Sequence[pb.ChatMessage], path: str, problems: Problems) -> list[dict[str, str]]:
    if not messages:
        problems.add(path, "is empty; write at least one message")
    for index, message in enumerate(messages):
        if message.role not in enums.ROLE:
            problems.add(f"{path}[{index}].role", "write ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT or ROLE_TOOL")
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
        stop=tuple(message.stop[: MOST_STOPS + 1]),
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
        problems.add(path, f"has more than {MOST_STOPS} strings; write at most {MOST_STOPS}")
    for index, stop in enumerate(stops[:MOST_STOPS]):
        if not 0 < len(stop) <= LONGEST_STOP:
            problems.add(f"{path}[{index}]", f"has {len(stop)} characters; write 1 to {LONGEST_STOP}")


def _clamps(messages: Sequence[pb.Clamp], path: str, problems: Problems) -> tuple[Clamp, ...]:
    if len(messages) > MOST_CLAMPS:
        problems.add(path, f"has {len(messages)} clamps; write at most {MOST_CLAMPS}")
        return ()
    read = [_clamp(message, f"{path}[{index}]", problems) for index, message in enumerate(messages)]
    seen: set[int] = set()
    for index, message in enumerate(messages):
        if message.feature in seen:
            problems.add(
                f"{path}[{index}].feature", f"feature {message.feature} is clamped twice; write it once"
            )
        seen.add(message.feature)
    return tuple(clamp for clamp in read if clamp is not None)


def _clamp(message: pb.Clamp, path: str, problems: Problems) -> Clamp | None:
    """A clamp; None where a field of it is wrong."""
    unsaid = message.where == pb.CLAMP_WHERE_UNSPECIFIED
    where = Where.by_default(message.target) if unsaid else enums.WHERE_OF.get(message.where)
    error_term = enums.ERROR_TERM_OF.get(message.error_term)
    if where is None:
        problems.add(f"{path}.where", "write CLAMP_WHERE_ACTIVE or CLAMP_WHERE_EVERYWHERE")
    if error_term is None:
        problems.add(f"{path}.error_term", "write ERROR_TERM_KEEP or ERROR_TERM_DROP")
    in_range = problems.number(f"{path}.target", message.target, -LARGEST_TARGET, LARGEST_TARGET)
    if where is None or error_term is None or not in_range:
        return None
    return Clamp(message.feature, message.target, where, error_term)


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


def session_and_labels(
    message: _Bound, path: str, problems: Problems, *, prefix: str = "", session: str = "session_id"
) -> tuple[str, dict[str, str]]:
    """The session id (empty for none) and the labels of an input. Adds wrong ones to `problems`.

    `prefix` stands before the names of both fields, `session` is that of the session.
    """
    at_labels = f"{path}.{prefix}labels"
    if len(message.session_id) > LONGEST_SESSION:
        problems.add(f"{path}.{prefix}{session}", f"is longer than {LONGEST_SESSION} characters")
    if len(message.labels) > MOST_LABELS:
        problems.add(at_labels, f"has more than {MOST_LABELS} labels; write fewer")
        return message.session_id, {}
    labels = dict(message.labels)
    for name, value in labels.items():
        if not _NAME.fullmatch(name):
            problems.add(at_labels, "a name must be 1 to 64 letters, digits, `_`, `.` or `-`, no digit first")
        if len(value) > LONGEST_LABEL:
            problems.add(at_labels, f"a value is longer than {LONGEST_LABEL} characters")
    return message.session_id, labels
