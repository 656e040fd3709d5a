"""The pair of a model and a dictionary that a command works on: opened, and tested that the two fit each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from monitor.cli.show.console import stderr_console
from monitor.cli.show.progress import steps_of
from monitor.settings import Settings, load_settings

if TYPE_CHECKING:
    from monitor.dictionary.bundle import Dictionary
    from monitor.lab.pair import Pair

AUTO = "auto"
"""Default of the flags of device and number type."""


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
    """Open what the flags of a command name, or the settings; the default pair where neither names anything.

    Raises SelfTestFailed where the two do not fit each other, unless `skip_self_test`; the errors of `open_pair` where
    one cannot be used, and of `what_runs`. `measured` and `dtype` as in `open_pair`.
    """
    chosen = what_runs(
        model, dictionary, dictionary_format, pair_name, device, dtype, skip_self_test=skip_self_test
    )
    with steps_of("loading the model") as step:
        opened = opened_untested(chosen, measured=measured)
        if not chosen.skip_self_test:
            from monitor.model.selftest.self_test import require_fit

            step("testing that the dictionary fits the model")
            require_fit(opened.loaded_pair)
    if chosen.skip_self_test:
        stderr_console().print("self-test skipped: nobody has checked that this dictionary fits this model")
    return opened


def what_runs(
    model: str | None = None,
    dictionary: Path | None = None,
    dictionary_format: str | None = None,
    pair_name: str | None = None,
    device: str = AUTO,
    dtype: str = AUTO,
    layer: int | None = None,
    *,
    skip_self_test: bool = False,
) -> Settings:
    """What a command is to open: as its flags say, else the variables SAE_MONITOR_…, else the settings file.

    Raises ConfigurationError that names each wrong flag, variable or line, misspelt variables among them.
    """
    given = {"pair": pair_name, "model": model, "dictionary": dictionary, "layer": layer}
    given |= {"dictionary_format": dictionary_format, "skip_self_test": skip_self_test or None}
    return load_settings(given | {"device": _said(device), "dtype": _said(dtype)})


def _said(value: str) -> str | None:
    """The value of a flag, or None where it is its default: then variables and the settings file count."""
    return None if value == AUTO else value


def opened_untested(chosen: Settings, *, measured: bool = True) -> Pair:
    """The pair that settings name, without the test that its parts fit each other."""
    from monitor.lab.pair import open_pair
    from monitor.rpc.process.user import name_user

    log_to_stderr()
    name_user()
    return open_pair(
        chosen.model,
        chosen.dictionary,
        chosen.device,
        chosen.dictionary_format,
        chosen.dtype,
        chosen.layer,
        measured=measured,
        pair=chosen.pair,
        cache=chosen.cache,
        tell=told,
    )


def opened_dictionary(
    pair_name: str | None, dictionary: Path | None, dictionary_format: str | None
) -> Dictionary:
    """The dictionary alone that the flags of a command name, or the settings; that of the default pair otherwise.

    Raises the errors of `what_runs`, and DictionaryError where it cannot be read.
    """
    from monitor.lab.pair import open_dictionary

    chosen = what_runs(dictionary=dictionary, dictionary_format=dictionary_format, pair_name=pair_name)
    return open_dictionary(chosen.dictionary, format=chosen.dictionary_format, pair=chosen.pair)


def log_to_stderr() -> None:
    """Have log lines, such as that a GGUF file is unpacked, written to standard error and not among the results."""
    from monitor.telemetry.logs import configure

    configure("info", "console")


def told(line: str) -> None:
    """Say on standard error what must be known of a pair that a command opens."""
    stderr_console().print(line, soft_wrap=True)
