"""What long commands say where standard error is no terminal."""

import re

from monitor.cli.show import progress
from monitor.dictionary.training import progress as pace


def test_steps_are_lines_with_the_time_since_the_start(capsys):
    with progress.steps_of("loading the model") as step:
        step("fitting scams (1 of 2)")
    lines = capsys.readouterr().err.splitlines()
    assert [re.sub(r"^ +\d+ s  ", "", line) for line in lines] == [
        "loading the model",
        "fitting scams (1 of 2)",
    ]


def test_items_are_followed_with_rate_and_time_left(capsys, monkeypatch):
    now = iter(range(0, 1000, 4))
    monkeypatch.setattr(pace.WorkLines.__init__, "__defaults__", (lambda: float(next(now)),))
    assert list(progress.followed("abcd", "reading and fitting", 4, "sources")) == list("abcd")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "reading and fitting: 4 sources at most"
    assert re.fullmatch(r"reading and fitting: 1 of 4 sources  [\d.]+ sources/s  \d:\d\d:\d\d left", lines[1])
