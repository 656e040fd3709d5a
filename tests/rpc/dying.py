"""`python -m tests.rpc.dying FLAGS`: `sae-monitor serve` whose engine dies at its first pass."""

from __future__ import annotations

import sys
from unittest import mock

from monitor.model.engine import Engine


def _fail(*_: object) -> None:
    raise RuntimeError("planted")


if __name__ == "__main__":
    from monitor.cli.app import app

    sys.argv = ["sae-monitor", "serve", *sys.argv[1:]]
    with mock.patch.object(Engine, "draw", _fail):
        app(prog_name="sae-monitor")
