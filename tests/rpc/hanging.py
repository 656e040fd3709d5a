"""`python -m tests.rpc.hanging FLAGS`: `sae-monitor serve`, where the first pass for a caller and reloads never end."""

from __future__ import annotations

import sys
import threading
from typing import Any
from unittest import mock

from monitor.model.tap.bank import FeatureBank
from monitor.rpc import assembly
from monitor.rpc.calls import Calls

_asked, _loaded = threading.Event(), threading.Event()
_load = assembly.load_policies
_offices, _activations = Calls._offices, FeatureBank.activations


def _opened(self: Calls) -> Any:
    """Callers' requests come this way; those of checks at start do not."""
    _asked.set()
    return _offices(self)


def _hang(self: FeatureBank, *args: Any) -> Any:
    if _asked.is_set():
        _wait()
    return _activations(self, *args)


def _load_once(*args: Any, **named: Any) -> Any:
    if _loaded.is_set():
        _wait()
    _loaded.set()
    return _load(*args, **named)


def _wait() -> None:
    sys.stderr.write("hanging\n")
    sys.stderr.flush()
    threading.Event().wait()


if __name__ == "__main__":
    from monitor.cli.app import app

    sys.argv = ["sae-monitor", "serve", *sys.argv[1:]]
    with (
        mock.patch.object(FeatureBank, "activations", _hang),
        mock.patch.object(Calls, "_offices", _opened),
        mock.patch.object(assembly, "load_policies", _load_once),
    ):
        app(prog_name="sae-monitor")
