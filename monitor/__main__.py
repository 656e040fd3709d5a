"""`python -m monitor` and the console script `sae-monitor`."""

from __future__ import annotations

import sys
import traceback

from monitor.cli import streams


def main() -> None:
    """Run the command line; an unforeseen error exits with 2, so that it never reads as "a rule matched"."""
    # Before anything is imported that may open a file, which would get the number of a closed stream.
    streams.prepare()
    if "serve" not in sys.argv[1:2]:  # It has a log, and writes what libraries say there.
        streams.attribute_libraries()
    code = _run()
    failed = streams.finish()
    if failed and not code:
        print(f"error: the output could not be written: {failed}", file=sys.stderr)
        code = 2
    sys.exit(code)


def _run() -> str | int | None:
    """The command's exit code."""
    from monitor.cli.app import app

    try:
        app(prog_name="sae-monitor")
    except SystemExit as ended:
        return ended.code
    except OSError as error:  # of a help or a version, which are printed before any command runs
        print(f"error: {error.strerror or error}", file=sys.stderr)
        return 2
    except Exception:  # noqa: BLE001 - the last frame of the process
        traceback.print_exc()
        return 2
    return 0


if __name__ == "__main__":
    main()
