"""Benign requests of every length and kind, made of benign texts: what a budget is set on.

A conversation is a prompt with its response. A text by itself becomes a prompt and, unless it is an instruction, also
a response; half of the texts are put as a user's turn, because callers send both. A long text is cut into pieces of
several lengths, so that every length gets its share.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from monitor.policy.files.benign import INSTRUCTIONS, BenignText, Turn

SHORTEST = 4
"""Tokens of the shortest pieces."""
LONGEST = 6000
"""Tokens of the longest pieces, where the model's context holds so many."""
WANTED = (2.0, 2.0, 2.0, 1.5, 1.25, 1.25)
"""Requests of each kind and length, from the shortest length on, as a multiple of how many suffice."""
PIECES = 8
"""Most pieces of one text."""
MOST_TOKENS = 800_000
"""Tokens that are read, unless somebody says otherwise."""

Count = Callable[[str], int]
"""Says how many tokens a text has."""


@dataclass(frozen=True)
class BenignRequest:
    """A request that no rule should fire on."""

    kind: str
    group: str
    prompt: str | tuple[Turn, ...]
    """A text by itself, or the messages of a conversation."""
    response: str = ""
    """The answer to it; empty where only the prompt is read."""
    either: bool = False
    """True for a text that a model may as well have written: it counts as a prompt, and once more as a response."""
    tokens: int = 0
    """About how many tokens it has."""

    @property
    def written(self) -> tuple[str, ...]:
        """Everything that it is made of."""
        turns = (self.prompt,) if isinstance(self.prompt, str) else tuple(t["content"] for t in self.prompt)
        return (self.kind, *turns, "\0", self.response)


@dataclass(frozen=True)
class RequestPlan:
    """How many requests of which lengths are wanted."""

    edges: tuple[int, ...]
    """Last token of each length but the last."""
    sufficient: int
    """How many requests of a length and kind suffice."""
    context: int
    """Tokens of the model's context."""
    most_tokens: int = MOST_TOKENS
    turns: bool = True
    """Whether the model has a chat template."""

    @property
    def longest(self) -> int:
        """Tokens of the longest pieces."""
        return min(self.context, LONGEST)

    def length(self, tokens: int) -> int:
        """Which length a number of tokens is."""
        return next((i for i, edge in enumerate(self.edges) if tokens <= edge), len(self.edges))

    def span(self, length: int) -> tuple[int, int]:
        """The fewest and the most tokens of a length."""
        low = SHORTEST if length == 0 else self.edges[length - 1] + 1
        return low, min(self.edges[length] if length < len(self.edges) else self.longest, self.longest)

    def wanted(self, kinds: int) -> list[int]:
        """How many requests of each length are wanted of each of so many kinds, the shortest lengths first.

        Where tokens do not suffice for a length, there are fewer of it, or none where they were too few for all kinds
        together.
        """
        left, found = float(self.most_tokens), []
        for length in range(len(self.edges) + 1):
            low, high = self.span(length)
            each = math.sqrt(low * high) if high >= low else math.inf
            most = int(left / (each * kinds))
            count = min(math.ceil(WANTED[min(length, len(WANTED) - 1)] * self.sufficient), most)
            count = count if count * kinds >= self.sufficient else 0
            left -= count * kinds * each if count else 0.0
            found.append(count)
        return found


def benign_requests(texts: Sequence[BenignText], plan: RequestPlan, count: Count) -> list[BenignRequest]:
    """Requests made of benign texts, as many of each kind and length as the plan wants and the texts give.

    The same texts always give the same requests.
    """
    kinds = sorted({text.kind for text in texts})
    wanted = plan.wanted(len(kinds)) if kinds else []
    left = Counter({(kind, length): n for kind in kinds for length, n in enumerate(wanted)})
    ordered = sorted(texts, key=lambda text: _digest(text.plain))
    found: list[BenignRequest] = []
    for text in ordered:
        if not any(left[text.kind, length] > 0 for length in range(len(wanted))):
            continue
        made = _conversation(text, plan, count, left) if text.messages else _pieces(text, plan, count, left)
        found += made
    return found


def _conversation(
    text: BenignText, plan: RequestPlan, count: Count, left: Counter[tuple[str, int]]
) -> list[BenignRequest]:
    """A conversation as it is, where a prompt or a response of its length is wanted."""
    asked = count("\n".join(turn["content"] for turn in text.prompt)) if text.prompt else 0
    said = count(text.answer) if text.answered else 0
    lengths = {plan.length(n) for n in (asked, said) if n}
    if asked + said > plan.longest or not any(left[text.kind, length] > 0 for length in lengths):
        return []
    left.subtract((text.kind, length) for length in lengths)
    if plan.turns:
        return [BenignRequest(text.kind, text.group, text.prompt, text.answer, tokens=asked + said)]
    plain = "\n\n".join(turn["content"] for turn in text.prompt)
    return [BenignRequest(text.kind, text.group, plain, text.answer, tokens=asked + said)]


def _pieces(
    text: BenignText, plan: RequestPlan, count: Count, left: Counter[tuple[str, int]]
) -> Iterator[BenignRequest]:
    """Pieces of a text, one after the other, each of the length that is wanted most."""
    draw = random.Random(_digest(text.plain))
    rest, whole = text.text.strip(), count(text.text)
    rate = len(text.text) / max(whole, 1)
    for _ in range(PIECES):
        tokens = int(len(rest) / rate)
        lengths = [n for n in range(plan.length(tokens) + 1) if left[text.kind, n] > 0]
        if tokens < SHORTEST or not lengths:
            return
        length = max(lengths, key=lambda n: left[text.kind, n])
        low, high = plan.span(length)
        size = int(low * (min(high, tokens) / low) ** draw.random())
        # What is left of a short text is no text by itself.
        size = tokens if tokens < 2 * size and tokens <= high else size
        piece, rest = _cut(rest, int(size * rate) + 1)
        left[text.kind, length] -= 1
        yield _alone(text, piece, size, as_turn=plan.turns and draw.random() < 0.5)


def _cut(text: str, characters: int) -> tuple[str, str]:
    """The beginning of a text up to the end of a word, and the rest from the next line or word on."""
    if characters >= len(text):
        return text, ""
    end = text.rfind(" ", characters // 2, characters + 1)
    end = characters if end < 0 else end
    rest = text[end:]
    line = rest.find("\n", 0, 400)
    return text[:end], rest[line + 1 if line >= 0 else 0 :].lstrip()


def _alone(text: BenignText, piece: str, tokens: int, *, as_turn: bool) -> BenignRequest:
    """A text by itself as a request, put as a user's turn or as it is."""
    if as_turn:
        turn = ({"role": "user", "content": piece},)
        return BenignRequest(text.kind, text.group, turn, tokens=tokens)
    either = text.kind != INSTRUCTIONS
    return BenignRequest(text.kind, text.group, piece, either=either, tokens=tokens)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
