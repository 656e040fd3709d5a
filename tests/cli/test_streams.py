"""Standard streams that are closed, that nobody reads, that lack characters or space, and terminals of no width."""

import io
import json
import os
import subprocess
import sys
import warnings

import pytest

from monitor.cli import streams
from monitor.cli.show.console import stdout_console
from tests.telemetry.decisions.logs import log

BLANK = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR", "TERM")}


def sh(script, *arguments, **environment):
    """Run a script with `$m` for the command line; gives its exit code, output and errors."""
    variables = BLANK | {"m": f"{sys.executable} -m monitor"} | environment
    done = subprocess.run(
        ["bash", "-c", script, "bash", *map(str, arguments)],
        env=variables, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A log of a few thousand lines, more than any pipe holds."""
    there = tmp_path_factory.mktemp("log")
    decisions = log(there)
    content = {"kind": "note", "text": "Ω" * 400}
    for future in [decisions.append(lambda: content) for _ in range(1000)]:
        future.result()
    decisions.close()
    return there


NO_READER = "exec 3> >(exec <&-; sleep 0.01); wait $!; "
"""Makes a pipe whose reader has gone, as descriptor 3."""


@pytest.mark.slow
@pytest.mark.parametrize("more", ["", "--json"])
@pytest.mark.parametrize(
    ("text", "faults", "code"), [("hello", {}, 0), ("power", {}, 1), ("hello", {"unscored": 1}, 2)]
)
def test_the_exit_code_of_score_and_generate_is_the_verdict_whoever_reads(serve, text, faults, code, more):
    address, *_ = serve(**faults)
    command = f"score --connect $1 '{text}' {more}"
    for script in (
        f"{NO_READER} $m {command} >&3",
        f"$m {command} >&-",
        f"$m {command} | cat > /dev/null; exit ${{PIPESTATUS[0]}}",
    ):
        assert sh(script, address) == (code, "", "")
    if text == "power":
        assert sh(f"{NO_READER} $m generate --connect $1 {text} {more} >&3", address) == (1, "", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "decisions tail -n 1000 --log $1",
        "decisions tail -f -n 1000 --json --log $1",
    ],
)
def test_a_list_ends_when_nobody_reads_on(folder, command):
    found, lines, errors = sh(f"set -o pipefail; $m {command} | head -n 2", folder)
    assert (found, errors) == (0, "")
    assert len(lines.splitlines()) == 2


@pytest.mark.slow
def test_a_failing_check_fails_whoever_reads(folder):
    script = "set -o pipefail; $m decisions verify --log $1 | head -c 1"
    assert sh(script, folder)[0] == 0
    (folder / "decisions-0000000000009999.jsonl").write_text("broken\n")
    try:
        for script in ("$m decisions verify --log $1 >&-", f"{NO_READER} $m decisions verify --log $1 >&3"):
            found, _, errors = sh(script, folder)
            assert (found, errors) == (1, "")
    finally:
        (folder / "decisions-0000000000009999.jsonl").unlink()


@pytest.mark.slow
def test_a_full_disk_is_an_error_that_is_told_once(folder):
    for command in (
        "policy schema",
        "decisions tail --log $1",
        "decisions tail --json --log $1",
        "--version",
    ):
        found, _, errors = sh(f"$m {command} > /dev/full", folder)
        assert found == 2
        assert errors.count("No space left on device") == 1
        assert "Traceback" not in errors


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams_change_nothing(folder, tmp_path, closed):
    script = f"cd $2 && $m decisions verify --log $1 {closed}"
    found, lines, errors = sh(script, folder, tmp_path)
    assert (found, errors) == (0, "")
    assert bool(lines) == (">&-" not in closed.replace("2>&-", ""))


@pytest.mark.slow
def test_a_closed_standard_input_is_empty(folder):
    found, _, errors = sh("$m score - <&-")
    assert (found, errors) == (2, "error: standard input is empty: there is nothing to read\n")


@pytest.mark.slow
@pytest.mark.parametrize("columns", ["0", "00", "-5", "abc", "²", "٣", "1", "7", "9" * 30, ""])
@pytest.mark.parametrize("command", ["decisions verify --log $1", "--help"])
def test_any_number_of_columns(folder, columns, command):
    found, lines, errors = sh(f"$m {command}", folder, COLUMNS=columns, TERMINAL_WIDTH=columns)
    assert (found, errors) == (0, "")
    assert len(lines.strip()) > 40
    assert len(lines) < 1_000_000


@pytest.mark.slow
def test_in_an_encoding_without_a_character_json_stays_json(folder):
    found, lines, errors = sh("$m decisions tail -n 1 --json --log $1", folder, PYTHONIOENCODING="latin-1")
    assert (found, errors) == (0, "")
    assert json.loads(lines)["text"] == "Ω" * 400
    assert "Ω" not in lines


@pytest.mark.parametrize(
    ("text", "shown"), [("Ω漢", "\\u03a9\\u6f22"), ("\U0001f600", "\\ud83d\\ude00"), ("\udcff", "\\udcff")]
)
def test_what_cannot_be_encoded_is_escaped_as_json_does(text, shown):
    streams.codecs.register_error(streams._ESCAPE, streams._escaped)
    assert text.encode("ascii", streams._ESCAPE).decode() == shown


@pytest.mark.parametrize(
    ("text", "width"), [("0", None), ("", None), ("x", None), ("1", 20), ("80", 80), ("99999999999", 1000)]
)
def test_columns_are_kept_within_what_can_be_drawn(text, width, monkeypatch):
    assert streams.columns({"COLUMNS": text}) == width
    monkeypatch.setenv("COLUMNS", text)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert stdout_console().width == (width or 100)


@pytest.mark.slow
def test_what_a_library_says_is_marked_as_its_own():
    code = (
        "from monitor.cli import streams; streams.prepare(); streams.attribute_libraries()\n"
        "import logging, warnings\n"
        "logging.getLogger('torchao').warning('cannot do this')\n"
        "warnings.warn_explicit('old', DeprecationWarning, '/x/site-packages/tokenizers/a.py', 3)\n"
        "warnings.warn_explicit('odd', UserWarning, '/x/site-packages/tokenizers/a.py', 3)\n"
        "from transformers.utils import logging as theirs\n"
        "theirs.get_logger('transformers.modeling').warning('%d weights were made up', 3)\n"
        "theirs.get_logger('transformers.modeling').warning({'a': '100%'})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=BLANK)
    assert [line.removeprefix("[transformers] ") for line in done.stderr.splitlines()] == [
        "[library torchao] cannot do this",
        "[library tokenizers] UserWarning: odd",
        "[library transformers.modeling] 3 weights were made up",
        "[library transformers.modeling] {'a': '100%'}",
    ]
    assert warnings.showwarning is not streams._warned
