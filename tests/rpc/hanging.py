"""`python -m tests.rpc.hanging FLAGS`: `sae-monitor serve` whose first pass for a caller never ends."""

from __future__ import annotations

import sys
import threading
from typing import Any
from unittest import mock

from monitor.model.bank import FeatureBank
from monitor.rpc.calls import Calls

_asked = threading.Event()
_mailbox, _activations = Calls._mailbox, FeatureBank.activations


def _opened(self: Calls, submit: Any) -> Any:
    """Callers' requests come this way; those of checks at start do not."""
    _asked.set()
    return _mailbox(self, submit)


def _hang(self: FeatureBank, *args: Any) -> Any:
    if _asked.is_set():
        sys.stderr.write("hanging\n")
        sys.stderr.flush()
        threading.Event().wait()
    return _activations(self, *args)


if __name__ == "__main__":
    from monitor.cli.app import app

    sys.argv = ["sae-monitor", "serve", *sys.argv[1:]]
    with mock.patch.object(FeatureBank, "activations", _hang), mock.patch.object(Calls, "_mailbox", _opened):
        app(prog_name="sae-monitor")
