"""Conversations: texts that read `Human: …` and `Assistant: …` as the turns that a chat template takes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

Turn = Mapping[str, str]

_SPEAKERS = {"Human": "user", "User": "user", "Assistant": "assistant"}
_OPENS = re.compile(r"(?:^|\n\n|\n(?=Assistant:|User:))(Human|User|Assistant):[ \n]")


def turns_of(text: str) -> tuple[Turn, ...]:
    """The turns of a dialogue, which begins with the user's; none where the text is no dialogue.

    Turns of one speaker that follow each other are joined, and empty ones are left out, because templates take neither.
    """
    marks = list(_OPENS.finditer(text))
    if not marks or marks[0].start() or _SPEAKERS[marks[0][1]] != "user":
        return ()
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    said = [
        (_SPEAKERS[mark[1]], text[mark.end() : end].strip()) for mark, end in zip(marks, ends, strict=True)
    ]
    return _joined(said)


def _joined(said: Sequence[tuple[str, str]]) -> tuple[Turn, ...]:
    turns: list[dict[str, str]] = []
    for role, content in said:
        if not content:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += f"\n\n{content}"
        else:
            turns.append({"role": role, "content": content})
    return tuple(turns) if turns and turns[0]["role"] == "user" else ()


def user(content: str) -> Turn:
    """A turn of the user."""
    return {"role": "user", "content": content}


def assistant(content: str) -> Turn:
    """A turn of the model."""
    return {"role": "assistant", "content": content}
