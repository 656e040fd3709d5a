"""What a command prints, as a picture that fetches nothing."""

import pytest
from rich.console import Console
from rich.text import Text

from monitor.cli.show.console import has_colour
from monitor.cli.show.svg import save_svg
from monitor.errors import InputError


def test_a_recorder_keeps_colours_whatever_the_environment(plain_environment):
    from monitor.cli.show.svg import recorder

    plain_environment.setenv("NO_COLOR", "1")
    console = recorder()
    assert has_colour(console)
    assert isinstance(console, Console)


def test_a_picture_fetches_nothing_and_keeps_spaces_and_colours(tmp_path):
    save_svg(Text.assemble("  indented ", ("red", "#ff0000")), tmp_path / "a.svg", "A <title>")
    drawn = (tmp_path / "a.svg").read_text("utf-8")
    assert drawn.startswith("<svg")
    for outside in ("@font-face", "url(http", "cdnjs", "@import"):
        assert outside not in drawn
    assert drawn.count("<text ") == drawn.count('<text xml:space="preserve" ') > 0
    assert "#ff0000" in drawn
    assert "&lt;title&gt;" in drawn


def test_a_picture_that_cannot_be_written_is_said(tmp_path):
    with pytest.raises(InputError, match=r"cannot write .*a\.svg: No such file"):
        save_svg(Text("x"), tmp_path / "none" / "a.svg", "t")
