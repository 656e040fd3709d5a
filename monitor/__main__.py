"""`python -m monitor` and the console script `sae-monitor`."""

from __future__ import annotations

import sys
import traceback

from monitor.cli import streams
from monitor.rpc.process.signals import end_as_first_process, exit_at_signals


def main() -> None:
    """Run the command line; an unforeseen error exits with 2, so that it never reads as "a rule matched"."""
    # Before anything is imported that may open a file, which would get the number of a closed stream.
    streams.prepare()
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    # Before anything large is imported, which takes seconds.
    if words[:1] == ["serve"] or (words[:1] == ["guard"] and words[:2] != ["guard", "check"]):
        with exit_at_signals():
            code = _run()
    else:
        end_as_first_process()
        streams.attribute_libraries()  # A server writes what libraries say into its log.
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
