"""The pair of a model and a dictionary that a command works on: opened, and tested that the two fit each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from monitor.cli.show.console import stderr_console
from monitor.cli.show.progress import steps_of

if TYPE_CHECKING:
    from monitor.lab.pair import Pair


def opened_pair(
    model: str | None,
    dictionary: Path | None,
    dictionary_format: str | None,
    device: str,
    *,
    pair_name: str | None = None,
    skip_self_test: bool,
    measured: bool = True,
    dtype: str = "auto",
) -> Pair:
    """Open what the flags of a command name; the default pair where they name nothing.

    Raises SelfTestFailed where the two do not fit each other, unless `skip_self_test`; the errors of `open_pair` where
    one cannot be used. `measured` and `dtype` as there.
    """
    from monitor.lab.pair import open_pair

    log_to_stderr()
    with steps_of("loading the model") as step:
        opened = open_pair(
            model, dictionary, device, dictionary_format, dtype, measured=measured, pair=pair_name, tell=told
        )
        if not skip_self_test:
            from monitor.model.selftest.self_test import require_fit

            step("testing that the dictionary fits the model")
            require_fit(opened.loaded_pair)
    if skip_self_test:
        stderr_console().print("self-test skipped: nobody has checked that this dictionary fits this model")
    return opened


def log_to_stderr() -> None:
    """Have log lines, such as that a GGUF file is unpacked, written to standard error and not among the results."""
    from monitor.telemetry.logs import configure

    configure("info", "console")


def told(line: str) -> None:
    """Say on standard error what must be known of a pair that a command opens."""
    stderr_console().print(line, soft_wrap=True)
