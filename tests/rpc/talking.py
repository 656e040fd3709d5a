"""`python -m tests.rpc.talking WAY FLAGS`: `sae-monitor serve` over a fake runtime that does what a test asks for.

WAY `load` never ends loading, `serve` serves, and `quote` has libraries quote every prompt in all the ways they have.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
import time
import warnings
from typing import Any
from unittest import mock

from monitor.rpc import assembly
from monitor.settings import Settings
from monitor.telemetry import output
from tests.rpc.fake import FakeRuntime, policies

QUEUED = 20_000
"""Bytes that may wait for a reader."""


def _assembled(runtime: FakeRuntime) -> Any:
    chosen = policies()
    return runtime, chosen, None, lambda: chosen, ()


def _loading(_: Settings) -> Any:
    logging.getLogger("transformers").warning("loading begins")
    while True:
        time.sleep(600)


class _Unraisable:
    def __init__(self, text: str) -> None:
        self._text = text

    def __del__(self) -> None:
        raise RuntimeError(self._text)


def quote(text: str) -> None:
    """Every way in which a library may write a text into a log."""
    log = logging.getLogger("transformers.generation")
    log.warning(f"Request with {text} will be dropped")
    log.warning("Request with %s will be dropped", text)
    try:
        raise ValueError(text)
    except ValueError:
        log.exception("Error in generation loop")
        logging.getLogger("somebody.else").exception(f"{text} failed")
    logging.getLogger("never.seen").error(text, stack_info=True)
    warnings.warn(f"cannot handle {text}", stacklevel=1)
    _Unraisable(text)
    gc.collect()
    thread = threading.Thread(target=_fail, args=(text,), name="a-library's")
    thread.start()
    thread.join()


def _fail(text: str) -> None:
    raise ValueError(text)


class _Quoting(FakeRuntime):
    def tokenise(self, content: Any, **named: Any) -> Any:
        quote(str(content))
        return super().tokenise(content, **named)

    def inspect(self, ids: Any, top_k: int) -> Any:
        raise RuntimeError(f"cannot inspect {ids}")

    def check_clamps(self, clamps: Any) -> None:
        """On the event loop, whose own complaints quote the arguments of a callback."""
        loop = asyncio.get_running_loop()
        loop.call_soon(_fail, "xyzzy-argument")
        failed: asyncio.Future[None] = loop.create_future()
        failed.set_exception(ValueError("xyzzy-future"))
        del failed


def _quoting(_: Settings) -> Any:
    # A handler of its own, as transformers has.
    logger = logging.getLogger("transformers")
    logger.addHandler(logging.StreamHandler())
    logger.propagate = False
    logger.warning("loading %s", "SOME-MODEL")
    return _assembled(_Quoting(policies().watch))


WAYS = {"load": _loading, "quote": _quoting, "serve": lambda _: _assembled(FakeRuntime(policies().watch))}

if __name__ == "__main__":
    from monitor.cli.app import app

    way, flags = sys.argv[1], sys.argv[2:]
    sys.argv = ["sae-monitor", "serve", *flags, "--log-format=json"]
    with mock.patch.object(assembly, "assemble", WAYS[way]), mock.patch.object(output, "_MOST_BYTES", QUEUED):
        app(prog_name="sae-monitor")
