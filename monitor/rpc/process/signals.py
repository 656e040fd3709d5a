"""Signals before the event loop takes them, and after it: SIGTERM and SIGINT end the process at once.

The kernel drops a signal without a handler where the process is the first of its container, so a server that is still
loading its model would not stop for minutes. Python runs handlers on the main thread only, between two steps of the
interpreter, and loading is one long step after another. So the number of a signal goes through a pipe to a thread.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from monitor.telemetry.output import close_output

STOPPING = (signal.SIGTERM, signal.SIGINT)


class ExitSignals:
    """Ends the process at SIGTERM and SIGINT while it is armed. Constructed, armed and closed on the main thread."""

    def __init__(self) -> None:
        self.code = 0
        """Exit code of the process."""
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._previous = {number: signal.getsignal(number) for number in (*STOPPING, signal.SIGHUP)}
        self._previous_wakeup = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        threading.Thread(target=self._run, name="signals", daemon=True).start()

    def arm(self, code: int = 0) -> None:
        """Take the signals from now on, until the event loop does. `code` is the exit code of the process.

        SIGHUP is ignored: it reloads policies once there are any, and by default it would end the process.
        """
        self.code = code
        signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        for number in STOPPING:
            signal.signal(number, _noted)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def end(self) -> None:
        """End the process now, without waiting for any thread of it."""
        close_output(_LAST_LINES)
        os._exit(self.code)

    def close(self) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self._previous.items():
            if handler is not None:
                signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_wakeup, warn_on_full_buffer=False)
        os.close(self._writing)

    def _run(self) -> None:
        while number := os.read(self._reading, 1):
            if number[0] in STOPPING:
                self.end()
        os.close(self._reading)


_LAST_LINES = 0.5
"""Longest time, in seconds, to write what was logged, when the process ends at once."""


def _noted(number: int, frame: FrameType | None) -> None:
    """Do nothing: without a handler in Python the number would not be written to the pipe."""


@contextmanager
def exit_at_signals() -> Iterator[ExitSignals]:
    """Have SIGTERM and SIGINT end the process at once, with exit code 0, until the block ends."""
    signals = ExitSignals()
    signals.arm()
    try:
        yield signals
    finally:
        signals.close()


def end_as_first_process() -> None:
    """Have SIGTERM end a command that is the first process of its container, as it ends every other process."""
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, _ended)


def _ended(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
