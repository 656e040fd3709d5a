"""Text on its way to a ScoreStream: messages made of it, and what of it may be shown by now."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Literal, NamedTuple

from monitor.client.requests import InputOptions, Prompt, as_input
from monitor.guard.settled_text import whole_characters
from monitor.v1 import monitor_pb2 as pb

Holding = Literal["hold", "sample", "end"]
"""When text may be shown: once it was scored, up to some tokens before that, or at once."""
_HOLDING = {"hold": pb.HOLDING_HOLD, "sample": pb.HOLDING_SAMPLE, "end": pb.HOLDING_END}
_REASONS = {"stop": pb.FINISH_REASON_STOP, "length": pb.FINISH_REASON_LENGTH, "error": pb.FINISH_REASON_ERROR}


class TextPiece(NamedTuple):
    """A piece of what another server writes."""

    text: str
    part: str = ""
    """What it is a part of, such as `reasoning`; empty for what is said."""
    unread: int = 0
    """Parts beside it that are no text, and cannot be scored."""
    call: str = ""
    """The call of a tool that it belongs to, such as `tool_calls[0]`. Each is scored as if it were the whole answer."""


class StreamOptions(InputOptions, total=False):
    """Options of a ScoreStream. The server has a default for each."""

    holding: Holding
    """When text may be shown; `hold` unless given."""
    sample_tokens: int
    """Of `sample`: how many tokens may be shown before they were scored."""
    expected_tokens: int
    """Tokens that the answer will have, as far as that is known."""
    unread: int
    """Parts of the prompt that are no text, such as images."""
    calls: Mapping[str, str]
    """Calls of tools in the prompt, text by name. Each is scored by itself, and is no part of the turns."""


def beginning(prompt: Prompt | None, options: StreamOptions) -> pb.ScoreStreamRequest:
    """The first message. Raises ValueError for values that it cannot hold."""
    given: InputOptions = {}
    for name in ("truncate", "session", "labels"):
        if name in options:
            given[name] = options[name]
    content = pb.Input() if prompt is None else as_input(prompt, **given)
    if prompt is None:
        content.session_id = given.get("session", "")
        content.labels.update(given.get("labels", {}))
    holding = options.get("holding", "hold")
    if holding not in _HOLDING:
        raise ValueError(f"{holding!r} is no way to hold text; write hold, sample or end")
    begin = pb.StreamBegin(
        input=content,
        holding=_HOLDING[holding],
        sample_tokens=options.get("sample_tokens", 0),
        expected_tokens=options.get("expected_tokens", 0),
        unread=options.get("unread", 0),
        calls=[
            pb.CallText(name=name, text=whole_characters(text))
            for name, text in options.get("calls", {}).items()
        ],
    )
    return pb.ScoreStreamRequest(begin=begin)


def writing(piece: TextPiece | str, *, settle: bool = False) -> pb.ScoreStreamRequest:
    """A message with a piece of the answer."""
    found = piece if isinstance(piece, TextPiece) else TextPiece(piece)
    told = pb.StreamPiece(
        text=whole_characters(found.text),
        part=found.part,
        unread=found.unread,
        settle=settle,
        call=found.call,
    )
    return pb.ScoreStreamRequest(piece=told)


def asking(role: str, text: str, *, settle: bool = False) -> pb.ScoreStreamRequest:
    """A message with a piece of the prompt. Raises ValueError for an unknown role."""
    roles = {"system": pb.ROLE_SYSTEM, "user": pb.ROLE_USER, "tool": pb.ROLE_TOOL}
    if role not in roles:
        raise ValueError(f"{role!r} is no role of a prompt's pieces; write {', '.join(roles)}")
    return pb.ScoreStreamRequest(
        piece=pb.StreamPiece(role=roles[role], text=whole_characters(text), settle=settle)
    )


def ending(reason: str) -> pb.ScoreStreamRequest:
    """The last message. Raises ValueError for an unknown reason."""
    if reason not in _REASONS:
        raise ValueError(f"{reason!r} is no reason; write {', '.join(_REASONS)}")
    return pb.ScoreStreamRequest(end=pb.StreamEnd(finish_reason=_REASONS[reason]))


class HeldText:
    """What was written and may not be shown yet."""

    def __init__(self) -> None:
        self._pieces: deque[TextPiece] = deque()
        self._shown = 0

    def wrote(self, piece: TextPiece) -> None:
        """One more piece was sent."""
        if piece.text:
            self._pieces.append(piece)

    def shown(self, characters: int) -> list[TextPiece]:
        """What may be shown now that so many characters from the beginning may be."""
        found: list[TextPiece] = []
        more, self._shown = characters - self._shown, max(self._shown, characters)
        while more > 0 and self._pieces:
            piece = self._pieces.popleft()
            if len(piece.text) > more:
                self._pieces.appendleft(piece._replace(text=piece.text[more:]))
                piece = piece._replace(text=piece.text[:more])
            more -= len(piece.text)
            found.append(piece)
        return found
