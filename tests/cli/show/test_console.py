"""Terminals, pipes and encodings."""

import io
import sys

import pytest

from monitor.cli.show.console import PIPE_WIDTH, has_colour, stdout_console


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("environment", "stream", "colour"),
    [
        ({}, Terminal, True),
        ({}, io.StringIO, False),
        ({"NO_COLOR": "1"}, Terminal, False),
        ({"TERM": "dumb"}, Terminal, False),
        ({"FORCE_COLOR": "1"}, io.StringIO, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, io.StringIO, False),
    ],
)
def test_colours_only_where_they_are_wanted(plain_environment, environment, stream, colour):
    for name, value in environment.items():
        plain_environment.setenv(name, value)
    plain_environment.setattr(sys, "stdout", stream())
    assert has_colour(stdout_console()) is colour


def test_a_pipe_has_a_fixed_width_unless_told_otherwise(plain_environment):
    plain_environment.setattr(sys, "stdout", io.StringIO())
    assert stdout_console().width == PIPE_WIDTH
    plain_environment.setenv("COLUMNS", "44")
    assert stdout_console().width == 44


def test_a_stream_that_lacks_a_character_gets_another(plain_environment):
    raw = io.BytesIO()
    plain_environment.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    console = stdout_console()
    console.print("● 漢")
    console.file.flush()
    assert raw.getvalue() == b"? ?\n"


def test_text_is_no_markup(plain_environment):
    plain_environment.setattr(sys, "stdout", io.StringIO())
    stdout_console().print("[bold]:smile: 12")
    assert sys.stdout.getvalue() == "[bold]:smile: 12\n"
