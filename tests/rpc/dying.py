"""`python -m tests.rpc.dying FLAGS`: `sae-monitor serve` whose engine dies at the first call for a generation."""

from __future__ import annotations

import sys
from typing import Any
from unittest import mock

from monitor.model.engine import Engine

_draw, _admit = Engine.draw, Engine._admit
_asked = False


def _admitted(self: Engine, track: Any) -> None:
    """Callers' requests are named with 32 digits; those of checks at start are not."""
    global _asked
    _asked = _asked or len(track.request.request_id) == 32
    _admit(self, track)


def _fail(self: Engine, logits: Any) -> Any:
    if _asked:
        raise RuntimeError("planted")
    return _draw(self, logits)


if __name__ == "__main__":
    from monitor.cli.app import app

    sys.argv = ["sae-monitor", "serve", *sys.argv[1:]]
    with mock.patch.object(Engine, "draw", _fail), mock.patch.object(Engine, "_admit", _admitted):
        app(prog_name="sae-monitor")
