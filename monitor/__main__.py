"""`python -m monitor` and the console script `sae-monitor`."""

from __future__ import annotations

import sys
import traceback

from monitor.rpc.process.signals import end_as_first_process, exit_at_signals


def main() -> None:
    """Run the command line; an unforeseen error exits with 2, so that it never reads as "a rule matched"."""
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    # Before anything large is imported, which takes seconds.
    if words[:1] == ["serve"]:
        with exit_at_signals():
            _run()
    else:
        end_as_first_process()
        _run()


def _run() -> None:
    from monitor.cli.app import app

    try:
        app(prog_name="sae-monitor")
    except Exception:  # noqa: BLE001 - the last frame of the process
        traceback.print_exc()
        sys.exit(2)


if __name__ == "__main__":
    main()
