"""`python -m tests.rpc.dying FLAGS`: `sae-monitor serve` whose engine dies in the midst of the first generation."""

from __future__ import annotations

import sys
from typing import Any
from unittest import mock

from monitor.model.engine.engine import Engine
from monitor.model.engine.requests import GenerationRequest

DRAWS = 6
"""It dies as the sixth token is drawn."""
_draw, _admit = Engine.draw, Engine._admit
_asked, _drawn = False, 0


def _admitted(self: Engine, request: GenerationRequest, *rest: Any) -> None:
    """Callers' requests are named with 32 digits; those of checks at start are not."""
    global _asked
    _asked = _asked or len(request.request_id) == 32
    _admit(self, request, *rest)


def _fail(self: Engine, logits: Any) -> Any:
    global _drawn
    _drawn += _asked
    if _drawn == DRAWS:
        raise RuntimeError("planted")
    return _draw(self, logits)


if __name__ == "__main__":
    from monitor.cli.app import app

    sys.argv = ["sae-monitor", "serve", *sys.argv[1:]]
    with mock.patch.object(Engine, "draw", _fail), mock.patch.object(Engine, "_admit", _admitted):
        app(prog_name="sae-monitor")
