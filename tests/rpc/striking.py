"""Faults that strike a stream at a known token, and what its caller may have been given by then.

Counts rows at the tapped layer itself, apart from everything that the product counts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from monitor.v1 import monitor_pb2 as pb
from tests.rpc.conftest import fails
from tests.rpc.faulty import Faulty
from tests.rpc.pairs import SILENT

LONG = 90
"""Tokens to generate: the fault comes long before the end."""
PROMPT = len(SILENT) + 1
"""Tokens of it: a byte each, behind BOS."""
SOUND = PROMPT + 9
"""Rows that pass before the fault: the prompt, and some of the response."""

Fault = Callable[[torch.Tensor], torch.Tensor | None]


class Strike:
    """Lets `sound` rows pass the layer on the engine's thread; from then on the fault has every pass of any thread."""

    def __init__(self, fault: Fault, sound: int) -> None:
        self.rows = 0
        """That entered the layer on the engine's thread, those that the fault met among them."""
        self.struck = threading.Event()
        self._fault, self._sound = fault, sound

    def __call__(self, x: torch.Tensor) -> torch.Tensor | None:
        if threading.current_thread().name != "scorer":
            if self.rows >= self._sound:
                self.struck.set()
            self.rows += x.shape[-2]
        return self._fault(x) if self.struck.is_set() else None


@contextmanager
def before_layer(server: Faulty, do: Fault) -> Iterator[None]:
    """Runs on what enters the tapped layer of every pass; a tensor that comes back takes its place."""

    def hook(_module: object, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        changed = do(args[0])
        return None if changed is None else (changed, *args[1:])

    handle = server.runtime.loaded.layers[server.runtime.layer].register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def striking(server: Faulty, fault: Fault, sound: int = SOUND) -> Iterator[Strike]:
    """The fault strikes the generation that is started in the block."""
    strike = Strike(fault, sound)
    with before_layer(server, strike):
        yield strike


def whole(server: Faulty, **fields: Any) -> pb.GenerateResponse:
    """What the long generation gives where nothing is broken."""
    response = server.generate(SILENT, max_new_tokens=LONG, include_tokens=True, **fields)
    assert len(response.tokens) > SOUND + 20
    return response


def long_stream(server: Faulty, **fields: Any) -> Any:
    return server.stream(SILENT, max_new_tokens=LONG, include_tokens=True, **fields)


def until_it_fails(call: Any, code: str) -> list[pb.GenerateStreamResponse]:
    """All that came before the stream ended with this status."""
    seen: list[pb.GenerateStreamResponse] = []
    with fails(code):
        for message in call:
            seen.append(message)
    return seen


def broken(server: Faulty, fault: Fault, code: str, **fields: Any) -> Strike:
    """A stream in whose midst the fault strikes; nothing from there on may have been delivered."""
    expected = whole(server)
    with striking(server, fault) as strike:
        seen = until_it_fails(long_stream(server, **fields), code)
    assert strike.struck.is_set()
    delivered_before(seen, expected, SOUND)
    return strike


def delivered_before(
    seen: Sequence[pb.GenerateStreamResponse], expected: pb.GenerateResponse, sound: int
) -> None:
    """The stream holds each of the first `sound` tokens of what was expected, and no token, text or verdict more."""
    tokens = [token for message in seen for token in message.chunk.tokens]
    text = "".join(message.chunk.text for message in seen)
    assert [token.position for token in tokens] == list(range(sound))
    assert [token.token_id for token in tokens] == [token.token_id for token in expected.tokens[:sound]]
    assert expected.text.startswith(text)
    assert len(text) <= sound - PROMPT, "a token is a byte, and a byte at most a character"
    assert not any(message.HasField("final") for message in seen)
