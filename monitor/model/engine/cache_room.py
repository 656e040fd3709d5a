"""The room for keys and values: how many tokens of a model can be held in the memory that is free."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from monitor.errors import ModelError
from monitor.model.load.host import free_memory

_SHARE = 0.5
"""Of the memory that is free, for the cache; passes and texts that are scored need room too."""
_HOST_MOST = 4 << 30
"""Bytes of the host's memory for the cache, unless one sequence needs more. All of it is written at the start."""
_MOST = 0.9
"""Of the memory that is free, where one sequence needs more than its share, or the operator names a size."""
_GIB = 1 << 30
_LEAST = 16
"""Tokens of a context that is still worth setting."""


class NoRoom(ModelError):
    """The memory that is free, or the cache that was asked for, does not hold one sequence of the whole context."""


@dataclass(frozen=True, slots=True)
class CacheRoom:
    """What a cached token costs on a device, and how much memory is there for the cache."""

    token_bytes: float
    """Bytes that one more token takes, in the cache and in what a pass makes of it."""
    free: float
    """Bytes that are free, without those that passes need however long the cache is."""
    usual: float
    """Bytes to take of them, unless one sequence needs more or the operator says otherwise."""

    def tokens(self, running: int, context: int, asked: int | None) -> int:
        """Tokens to hold: enough for `running` sequences of the whole context, as far as the memory goes.

        With `asked` it is that many. Raises NoRoom where one sequence of the whole context has no room.
        """
        most = int(_MOST * self.free / self.token_bytes)
        if asked is not None and asked > most:
            raise NoRoom(
                f"max_cache_tokens is {asked}, which takes {self._size(asked)}, and {self._size(most)} are free for "
                f"it; set max_cache_tokens to at most {most}, or leave it out"
            )
        if asked is None and context > most:
            raise NoRoom(
                f"the keys and values of one sequence of {context} tokens take {self._size(context)}, and "
                f"{self._size(most)} are free for them; "
                + (
                    f"set context_limit to at most {most}"
                    if most >= _LEAST
                    else "give this process more memory"
                )
            )
        if asked is not None:
            check_capacity(asked, context)
            return asked
        return min(running * context, max(context, int(self.usual / self.token_bytes)))

    def _size(self, tokens: int) -> str:
        return f"{tokens * self.token_bytes / _GIB:.2f} GiB"


def room_on(
    device: torch.device, token_bytes: float, *, needed: int = 0, memory: int | None = None
) -> CacheRoom:
    """The room on a device where a cached token takes `token_bytes`, and passes need `needed` bytes beside the cache.

    On the CPU `memory` are the bytes that this process may use.
    """
    free = max(0, _free_bytes(device, memory) - needed)
    usual = _SHARE * free
    return CacheRoom(token_bytes, free, usual if device.type == "cuda" else min(usual, _HOST_MOST))


def _free_bytes(device: torch.device, memory: int | None) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory(memory)


def check_capacity(tokens: int, context: int) -> None:
    """NoRoom where a cache of so many tokens cannot hold one sequence of the longest kind."""
    if tokens < context:
        raise NoRoom(
            f"the cache holds {tokens} tokens and one sequence may have {context}; set max_cache_tokens to at least "
            f"{context}, or context_limit to at most {tokens}"
        )
