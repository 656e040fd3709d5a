"""`python -m monitor` and the console script `sae-monitor`."""

from __future__ import annotations

import sys
import traceback

from monitor.cli.app import app


def main() -> None:
    """Run the command line; an unforeseen error exits with 2, so that it never reads as "a rule matched"."""
    try:
        app(prog_name="sae-monitor")
    except Exception:  # noqa: BLE001 - the last frame of the process
        traceback.print_exc()
        sys.exit(2)


if __name__ == "__main__":
    main()
