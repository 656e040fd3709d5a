"""Exit codes, and how an error is printed."""

import pytest

from monitor.cli.errors import ExitCode, exit_code, report
from monitor.errors import ConfigurationError, EngineDied, InputError, MonitorError, Overloaded


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EngineDied("x"), 3),
        (ConfigurationError("x"), 2),
        (InputError("x"), 2),
        (Overloaded("x", 1.0), 2),
        (MonitorError(), 2),
    ],
)
def test_exit_codes(error, code):
    assert exit_code(error) == code
    assert (ExitCode.CLEAN, ExitCode.MATCHED) == (0, 1)


def test_an_error_goes_to_standard_error_as_it_is(capsys):
    report(InputError("[bold]a:\n  second line, as long as it is " + "x" * 200))
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: [bold]a:\n  second line, as long as it is " + "x" * 200 + "\n"


def test_an_error_without_words_has_its_name(capsys):
    report(ConfigurationError())
    assert capsys.readouterr().err == "error: ConfigurationError\n"
